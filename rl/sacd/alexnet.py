"""The multi-branch AlexNet that SAC-d splits: 20 layers, three exits.

    images ─► layers 1..6 ─► 7..8 ─► 9..20 ─► exit 3
                 │             └► 4 layers of its own ─► exit 2   (12 in all)
                 └► 3 layers of its own ─► exit 1                 (9 in all)

The paper (section IV-A1) gives 9, 12 and 20 layers and no sizes. 20 is what the classic AlexNet
has when every convolution, ReLU, pool, dropout and linear layer counts; ours has these kinds in
this order, with kernels and widths for 32 x 32 pixels. Beyond the paper, every convolution has a
batch norm, which is part of its layer: folded into it, it costs nothing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xpi_ray.errors import PlanError

EXITS = (1, 2, 3)
LAYERS = (9, 12, 20)  # to each exit
LEAVES_TRUNK = (6, 8)  # layer after which branches 1 and 2 begin
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10's train split


class Dense(nn.Linear):
    """A linear layer of all values that it gets, (n, ...) -> (n, out)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that torch gives it
        """Flatten and multiply."""
        return super().forward(input.flatten(1))


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, padding=1)


class AlexNet(nn.Module):
    """AlexNet for images (n, 3, 32, 32), with two branches.

    Args:
        classes: K.
        widths: Channels of the five convolutions.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, classes: int = 10, widths: tuple[int, ...] = (48, 64, 128, 128, 128)
    ) -> None:
        super().__init__()
        first, second, third, fourth, fifth = widths
        features = [
            *(_convolution(3, first, 5), nn.ReLU(), _pool()),
            *(_convolution(first, second, 5), nn.ReLU(), _pool()),
            *(_convolution(second, third, 3), nn.ReLU()),
            *(_convolution(third, fourth, 3), nn.ReLU()),
            *(_convolution(fourth, fifth, 3), nn.ReLU(), _pool()),
        ]
        classifier = [
            *(nn.Dropout(0.1), Dense(fifth * 16, 512), nn.ReLU()),
            *(nn.Dropout(0.1), Dense(512, 256), nn.ReLU(), Dense(256, classes)),
        ]
        self.trunk = nn.ModuleList([*features, *classifier])
        self.branch_1 = nn.ModuleList([Dense(second * 64, 128), nn.ReLU(), Dense(128, classes)])
        self.branch_2 = nn.ModuleList(
            [_pool(), Dense(third * 16, 128), nn.ReLU(), Dense(128, classes)]
        )
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1) * 255, persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """Bring uint8 images (n, 3, 32, 32) to what layer 1 reads; counts as no layer."""
        values: Tensor = (images.float() - self.mean) / self.std
        return values.contiguous(memory_format=torch.channels_last)

    def path(self, exit_: int) -> list[nn.Module]:
        """The layers to an exit, 1..3: 9, 12 or 20 of them.

        Raises:
            PlanError: There is no such exit.
        """
        if exit_ not in EXITS:
            raise PlanError(f"expected an exit of 1..{len(EXITS)}, got {exit_}")
        if exit_ == len(EXITS):
            return list(self.trunk)
        branch = (self.branch_1, self.branch_2)[exit_ - 1]
        return [*self.trunk[: LEAVES_TRUNK[exit_ - 1]], *branch]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits (n, K) of the three exits for uint8 images."""
        return self.resume(self.normalise(images), 0)

    def resume(self, values: Tensor, layer: int) -> list[Tensor]:
        """Logits of those exits that the trunk's layers after ``layer`` still lead to."""
        logits, at = [], layer
        for exit_, leaves in enumerate(LEAVES_TRUNK, 1):
            if leaves >= layer:
                values = run(self.trunk[at:leaves], values)
                logits.append(run(self.path(exit_)[leaves:], values))
                at = leaves
        return [*logits, run(self.trunk[at:], values)]

    def fold(self) -> "AlexNet":
        """Prepare for inference: eval mode, batch norms folded into their convolutions."""
        self.eval()
        for number, layer in enumerate(self.trunk):
            if isinstance(layer, nn.Sequential):
                convolution, norm = layer
                assert isinstance(convolution, nn.Conv2d)
                assert isinstance(norm, nn.BatchNorm2d)
                self.trunk[number] = nn.utils.fusion.fuse_conv_bn_eval(convolution, norm)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self.requires_grad_(False)


def run(layers: Sequence[nn.Module] | nn.ModuleList, values: Tensor) -> Tensor:
    """Apply layers in turn."""
    for layer in layers:
        values = layer(values)
    return values
