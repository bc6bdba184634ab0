"""One Xpi block, the unit that an edge runs before it looks at its confidence and its budget.

    carry_{i-1} ─► extractor ─► features (n,C,h,w) ─┬─ first k channels ─► branch ─► b_i
                                                    └─ other C-k ─► carry_i
    exit_i = α_i · exit_{i-1} + (1-α_i) · b_i,   α_i = sigmoid(w_i / T)

Structure: Xpi (poster), Fig. 1 and 2. Fusion: AgileNN (MobiCom'22), section 3.3.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from xpi_ray.config import Frozen

FUSION_TEMPERATURE = 4.0  # T; AgileNN section 3.3 finds 4 to 8 best


class ExtractorSpec(Frozen):
    """The shape of what makes a block's features."""

    channels: int = Field(ge=1)
    """C, the channels that the extractor makes."""
    stride: int = Field(default=1, ge=1, le=2)
    """Down-sampling of the extractor."""
    stem_channels: int = Field(default=0, ge=0)
    """Width of a 3x3 convolution before the extractor's own; 0 leaves it out."""

    @property
    def carried(self) -> int:
        """The channels that go on to the next block, the last of all; here all of them."""
        return self.channels


class BlockSpec(ExtractorSpec):
    """The shape of one block."""

    branch_channels: int = Field(ge=1)
    """k, the first channels, which only the branch reads; k = C ends the network."""
    branch_widths: tuple[int, ...] = ()
    """Widths of the branch's strided 3x3 convolutions, before pooling."""

    @property
    def carried(self) -> int:
        """C - k."""
        return self.channels - self.branch_channels

    @model_validator(mode="after")
    def _branch_fits(self) -> "BlockSpec":
        if self.branch_channels > self.channels:
            raise ValueError(
                f"branch_channels ({self.branch_channels}) must not exceed channels "
                f"({self.channels})"
            )
        return self


class FoldableConv(nn.Sequential):
    """Convolution and batch norm, which ``fold`` makes one convolution for serving."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__(conv, norm)

    def fold(self) -> None:
        """Merge the batch norm's running statistics into the convolution, in place."""
        conv, norm = self[0], self[1]
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            self[0] = nn.utils.fusion.fuse_conv_bn_eval(conv.eval(), norm.eval())
            self[1] = nn.Identity()


class ConvNorm(FoldableConv):
    """3x3 convolution, or one of another odd size, and batch norm."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, kernel: int = 3
    ) -> None:
        padding = kernel // 2
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False),
            nn.BatchNorm2d(out_channels),
        )


class Extractor(nn.Module):
    """Makes a block's features. The carry passes through it on an identity path where sizes allow.

    Keeping the carried channels additive lets later blocks refine what earlier ones found while
    each block writes k fresh channels for its branch.
    """

    def __init__(self, in_channels: int, spec: ExtractorSpec) -> None:
        super().__init__()
        self.fresh = spec.channels - spec.carried  # k
        width = spec.stem_channels or in_channels
        self.stem = ConvNorm(in_channels, width) if spec.stem_channels else None
        self.conv = ConvNorm(width, spec.channels, spec.stride)
        self.residual = self.stem is None and spec.stride == 1 and spec.carried == in_channels

    def forward(self, carry: Tensor) -> Tensor:
        """Carry (n, C_in, h, w) to features (n, C, h/stride, w/stride)."""
        if self.stem is not None:
            carry = F.relu(self.stem(carry))
        features: Tensor = self.conv(carry)
        if self.residual:
            refined = features[:, self.fresh :] + carry
            features = torch.cat([features[:, : self.fresh], refined], 1) if self.fresh else refined
        return F.relu(features)


class Branch(nn.Module):
    """The small network that turns channels of a block into class logits.

    Args:
        channels: That it reads.
        widths: Of its strided 3x3 convolutions, before pooling.
        num_classes: K.
        squeezed: Width of a 1x1 convolution that comes first; 0 leaves it out.
    """

    def __init__(
        self, channels: int, widths: Sequence[int], num_classes: int, squeezed: int = 0
    ) -> None:
        super().__init__()
        self.squeeze = ConvNorm(channels, squeezed, kernel=1) if squeezed else None
        widths = (squeezed or channels, *widths)
        self.convs = nn.ModuleList(ConvNorm(a, b, stride=2) for a, b in pairwise(widths))
        self.classifier = nn.Linear(widths[-1], num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Channels (n, k, h, w) to logits (n, K)."""
        if self.squeeze is not None:
            features = F.relu(self.squeeze(features))
        for conv in self.convs:
            features = F.relu(conv(features))
        logits: Tensor = self.classifier(features.mean(dim=(2, 3)))
        return logits.float()  # also of a training in fewer bits


class XpiBlock(nn.Module):
    """Extractor, branch and fused exit.

    Args:
        extractor: Makes features of ``spec.channels`` from a carry.
        spec: The block's shape.
        num_classes: K.
    """

    def __init__(self, extractor: nn.Module, spec: BlockSpec, num_classes: int) -> None:
        super().__init__()
        self.spec = spec
        self.extractor = extractor
        self.branch = Branch(spec.branch_channels, spec.branch_widths, num_classes)
        self.fusion_weight = nn.Parameter(torch.zeros(()))  # w_i

    @property
    def alpha(self) -> Tensor:
        """α_i, the share of the earlier exits in this one, 0..1."""
        return torch.sigmoid(self.fusion_weight / FUSION_TEMPERATURE)

    def split(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, C, h, w) to what the branch reads (n, k, h, w) and the carry."""
        k = self.spec.branch_channels
        return features[:, :k], features[:, k:]

    def fuse(self, earlier: Tensor, branch_logits: Tensor, weight: float = 1.0) -> Tensor:
        """Exit i from exit i-1 and this branch's logits, both (n, K); the first has no earlier.

        Where exits between were skipped, the earlier one and this branch keep the proportion that
        they have where none is: ours, as AgileNN has no exits that may be skipped.

        Args:
            earlier: The last exit that ran.
            branch_logits: Of this block.
            weight: Of the last exit, see ``State``.
        """
        if earlier.shape[1] == 0:
            return branch_logits
        share = self.alpha
        if weight != 1.0:
            share = weight * share / (1 + (weight - 1) * share)
        return torch.lerp(branch_logits, earlier, share)
