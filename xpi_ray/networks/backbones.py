"""Single-exit networks for small images, as ordinary torch modules that know nothing of exits.

normalised images (n, 3, H, W) ─► convolutions ─► head ─► logits (n, K)

They are what ``attach_exits`` turns into EINet's multi-exit networks (ICDCS'23), as it would turn
any user's model. Convolutions are followed by batch norms everywhere, which serving folds away.
``width`` multiplies all channels, rounded, but for the image's and the logits'; 1 is as published.
"""

from torch import Tensor, nn

VGG16_STAGES = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
RESNET50_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # channels of a bottleneck, and how many
EXPANSION = 4  # channels that a bottleneck block makes, to those of its 3x3 convolution


def scaled(channels: int, width: float) -> int:
    """So many channels, multiplied by a width; 1 at least."""
    return max(1, round(channels * width))


def _convolution(
    in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1
) -> list[nn.Module]:
    """A convolution that keeps height and width but for its stride, and its norm."""
    return [
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
    ]


class AlexNet(nn.Module):
    """AlexNet for CIFAR, as BranchyNet (ICPR'16) has it in its code (``alex_cifar10``).

    Five convolutions, three of them pooled (3x3, stride 2), and three linear layers with dropout.
    Its local response norms, after the first two poolings, are left out: the batch norms, which it
    has none of, are ours and stand in for them. Features that are not 4x4, as those of 32x32 pixels
    are, are averaged to that.

    Args:
        num_classes: K.
        width: Multiplies channels.
    """

    def __init__(self, num_classes: int, width: float = 1.0) -> None:
        super().__init__()
        a, b, c, d, e = (scaled(channels, width) for channels in (32, 64, 96, 256, 128))
        self.features = nn.Sequential(
            *(*_convolution(3, a, 5), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)),
            *(*_convolution(a, b, 5), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)),
            *(*_convolution(b, c), nn.ReLU()),
            *(*_convolution(c, c), nn.ReLU()),
            *(*_convolution(c, b), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)),
        )
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            *(nn.Linear(16 * b, d), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(d, e), nn.ReLU(), nn.Dropout(0.5)),
            nn.Linear(e, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (n, 3, H, W) to logits (n, K)."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


class Vgg16(nn.Module):
    """VGG-16 (Simonyan and Zisserman, ICLR'15, column D) as it is usual for CIFAR.

    Thirteen 3x3 convolutions in five stages, each stage pooled (2x2), then one linear layer in
    place of three: 32x32 pixels are one by the end. Larger images are averaged there.

    Args:
        num_classes: K.
        width: Multiplies channels.
    """

    def __init__(self, num_classes: int, width: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for stage in VGG16_STAGES:
            for wanted in (scaled(each, width) for each in stage):
                layers += [*_convolution(channels, wanted), nn.ReLU()]
                channels = wanted
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (n, 3, H, W) to logits (n, K)."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


class Bottleneck(nn.Module):
    """A residual block of three convolutions, 1x1, 3x3 and 1x1 (He et al., CVPR'16, figure 5).

    The 3x3 convolution has the stride, as is usual today; the paper's first 1x1 one has it.

    Args:
        in_channels: That it reads.
        channels: Of its 3x3 convolution.
        stride: Of the block.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = EXPANSION * channels
        self.residual = nn.Sequential(
            *(*_convolution(in_channels, channels, 1), nn.ReLU()),
            *(*_convolution(channels, channels, 3, stride), nn.ReLU()),
            *_convolution(channels, out_channels, 1),
        )
        alike = stride == 1 and in_channels == out_channels
        self.shortcut = (
            nn.Identity()
            if alike
            else nn.Sequential(*_convolution(in_channels, out_channels, 1, stride))
        )
        self.relu = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """Features (n, C_in, h, w) to (n, 4·channels, h/stride, w/stride)."""
        out: Tensor = self.relu(self.residual(features) + self.shortcut(features))
        return out


class ResNet50(nn.Module):
    """ResNet-50 (He et al., CVPR'16) as it is usual for CIFAR: a 3x3 stem, and no pooling after it.

    Args:
        num_classes: K.
        width: Multiplies channels.
    """

    def __init__(self, num_classes: int, width: float = 1.0) -> None:
        super().__init__()
        channels = scaled(64, width)
        self.stem = nn.Sequential(*_convolution(3, channels), nn.ReLU())
        blocks = []
        for number, (wanted, count) in enumerate(RESNET50_STAGES):
            for block in range(count):
                stride = 2 if number > 0 and block == 0 else 1
                blocks.append(Bottleneck(channels, scaled(wanted, width), stride))
                channels = EXPANSION * scaled(wanted, width)
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (n, 3, H, W) to logits (n, K)."""
        logits: Tensor = self.head(self.blocks(self.stem(images)))
        return logits
