"""MSDNet: features at several scales at once, so that even early exits read coarse ones.

    image ─► scale 1 ─┬──────────┬──────────┐ dropped
                ▼     ▼          ▼          ▼
             scale 2 ─┴─► cat ───┴─► cat ───┴─► cat ─ …      each arrow: 1x1 and 3x3 convolution,
                ▼     ▼          ▼          ▼                downwards with stride 2
             scale 3 ─┴─► cat ───┴─► cat ───┴─► cat ─ … ─► an exit after each block

Huang et al., "Multi-Scale Dense Networks for Resource Efficient Image Classification" (ICLR'18),
section 4 and appendix A, as we remember them; sizes as in the authors' code. Theirs:

* Each layer reads all earlier features of its scale and, with stride 2, of the next finer one, and
  adds half of its channels from either. Convolution, batch norm, ReLU, in this order; a 1x1
  convolution narrows what is read.
* Network reduction: layers come in as many groups as there are scales, and after each group the
  finest scale is dropped. There a 1x1 convolution narrows every scale before it goes on.
* Lazy evaluation: a finer scale runs only as far as the exit needs it. A block is a diagonal: the
  coarsest scale up to some layer, the next finer one up to the layer before, and so on.
* An exit reads the coarsest scale through two 3x3 convolutions with stride 2 and a linear layer.

The authors' code narrows one layer later, when the finest scale has been read; we follow the paper.
Ours: an exit averages all that is left of height and width, which for 32x32 pixels is their 2x2.

**What can be served.** The carry is all that later blocks read, flat: scales that they read no more
are dropped, but no channels, as later layers read all of them. It has no height or width that a
codec could look at, (C, 1, 1) with C above 100,000 in places, and the ladder's models grow with the
square of C. So a bundle's codec is one that takes any shape (``float32``, ``shuffled_lz4``) and
frames are large; elastic mode, which runs all blocks at the edge, sends none.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from xpi_ray.networks.block import Branch, ConvNorm
from xpi_ray.networks.bundled import IMAGE_CHANNELS, BundledNetwork, NetworkSpec
from xpi_ray.networks.progressive import State

MOST_WEIGHTS = 2**26  # of a network, so that a spec from elsewhere fills no memory
MOST_CARRIED = 2**22  # values; as floats they fill the largest frame

Side = Annotated[int, Field(ge=1, le=1024)]
Factor = Annotated[int, Field(ge=1, le=16)]
Deviation = Annotated[float, Field(gt=0)]

Features = dict[int, Tensor]
"""By scale, 0 the finest; each (n, C, h, w)."""


class MsdSpec(NetworkSpec):
    """All that fixes an MSDNet but its weights."""

    num_classes: int = Field(ge=2, le=65_535)
    image_size: tuple[Side, Side]
    std: tuple[Deviation, Deviation, Deviation]
    blocks: int = Field(ge=1, le=64)
    """N; an exit is after each."""
    base: int = Field(ge=1, le=64)
    """Layers of the first block, after the one that makes the scales."""
    step: int = Field(default=1, ge=1, le=16)
    """Layers of each later block."""
    channels: int = Field(ge=1, le=512)
    """Of the finest scale's first features."""
    growth: int = Field(ge=1, le=512)
    """Channels that a layer adds at the finest scale."""
    scales: tuple[Factor, ...] = Field(min_length=1, max_length=6)
    """By what ``channels`` and ``growth`` are multiplied at each scale, the finest first."""
    bottlenecks: tuple[Factor, ...]
    """For each scale that is read, how many channels are left of it for each that is added."""
    reduction: float = Field(gt=0, le=1)
    """Share of the channels that are kept where a scale is dropped."""
    exit_channels: int = Field(ge=1, le=1024)
    """Of each of an exit's two convolutions."""

    @model_validator(mode="after")
    def _can_be_built(self) -> "MsdSpec":
        if len(self.bottlenecks) != len(self.scales):
            raise ValueError(
                f"bottlenecks must be {len(self.scales)}, one for each scale, got "
                f"{len(self.bottlenecks)}"
            )
        if self.growth * min(self.scales[1:], default=2) < 2:
            raise ValueError(
                "growth must add 2 channels or more at every scale but the finest, half of them "
                f"from the finer one; got {self.growth} times {self.scales}"
            )
        if self.weights > MOST_WEIGHTS:
            raise ValueError(f"a network may have {MOST_WEIGHTS} weights, not {self.weights}")
        largest = max(sum(_values(self, wave).values()) for wave in waves_of(self))
        if largest > MOST_CARRIED:
            raise ValueError(f"a carry may have {MOST_CARRIED} values, not {largest}")
        return self

    @property
    def weights(self) -> int:
        """Of all convolutions and linear layers."""
        waves, coarsest = waves_of(self), len(self.scales) - 1
        total = sum(9 * a * b for a, b in pairwise([IMAGE_CHANNELS, *self.widths]))
        for step in (step for wave in waves for step in wave.steps):
            total += step.own.weights + (step.finer.weights if step.finer else 0)
            total += step.gathered * step.narrowed
        for end in self.ends:
            read, width = waves[end - 1].alive[coarsest], self.exit_channels
            total += width * (9 * (read + width) + self.num_classes)
        return total

    @property
    def ends(self) -> list[int]:
        """Layers of the coarsest scale that are done after each block."""
        return [self.base + self.step * block for block in range(self.blocks)]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of each scale."""
        height, width = self.image_size
        return [
            (-(-height // 2**scale), -(-width // 2**scale)) for scale in range(len(self.scales))
        ]

    @property
    def widths(self) -> list[int]:
        """Channels of each scale's first features."""
        return [self.channels * factor for factor in self.scales]


class Transformation(NamedTuple):
    """Channels on the way from features that are read to those that are added."""

    read: int
    inner: int
    """What a 1x1 convolution leaves of them."""
    added: int

    @property
    def weights(self) -> int:
        """Of both convolutions."""
        return self.inner * (self.read + 9 * self.added)


class Step(NamedTuple):
    """What one layer does at one scale."""

    scale: int
    own: Transformation
    """Of the scale itself."""
    finer: Transformation | None
    """Of the next finer scale; None where that is dropped, or there is none."""
    narrowed: int
    """Channels that a 1x1 convolution leaves of the scale then; 0 where there is none."""

    @property
    def gathered(self) -> int:
        """Channels of the scale with those that are added."""
        return self.own.read + self.own.added + (self.finer.added if self.finer else 0)


class Wave(NamedTuple):
    """What brings the coarsest scale one layer on, and each finer one up to the layer before."""

    steps: tuple[Step, ...]
    """The finer scale first, which the next one reads."""
    alive: dict[int, int]
    """Channels by scale, of the coarsest and of those that later waves read."""


def waves_of(spec: MsdSpec) -> list[Wave]:
    """The waves of a network, one for each layer of its coarsest scale."""
    depth, count = spec.ends[-1], len(spec.scales)
    group = -(-depth // count)  # layers after which the finest scale is dropped
    widths, waves = spec.widths, []
    for wave in range(1, depth + 1):
        layers = [wave - (count - 1 - scale) for scale in range(count)]
        lasts = [min(group * (scale + 1), depth) for scale in range(count)]
        steps = []
        for scale, (layer, last) in enumerate(zip(layers, lasts, strict=True)):
            if 1 <= layer <= last:
                finer = widths[scale - 1] if scale and layer - 1 <= lasts[scale - 1] else 0
                narrows = layer % group == 0 and layer < depth
                steps.append(_step(spec, scale, widths[scale], finer, narrows))
                widths[scale] = steps[-1].narrowed or steps[-1].gathered
        alive = [scale for scale in range(count) if layers[scale] < lasts[scale]]
        waves.append(Wave(tuple(steps), {n: widths[n] for n in sorted({*alive, count - 1})}))
    return waves


def _step(spec: MsdSpec, scale: int, own: int, finer: int, narrows: bool) -> Step:
    """A step that reads so many channels of its own scale and of the finer one."""
    added = spec.growth * spec.scales[scale]
    half = added // 2 if finer else 0
    step = Step(
        scale,
        _transformation(own, added - half, spec.bottlenecks[scale]),
        _transformation(finer, half, spec.bottlenecks[scale - 1]) if finer else None,
        narrowed=0,
    )
    kept = max(1, math.floor(spec.reduction * step.gathered))
    return step._replace(narrowed=kept) if narrows else step


def _transformation(read: int, added: int, bottleneck: int) -> Transformation:
    return Transformation(read, min(read, bottleneck * added), added)


def _values(spec: MsdSpec, wave: Wave) -> dict[int, int]:
    """Values by scale in a carry after a wave."""
    return {scale: width * math.prod(spec.sizes[scale]) for scale, width in wave.alive.items()}


class Convolutions(nn.Sequential):
    """A transformation: 1x1 and 3x3 convolution, each with its norm and ReLU."""

    def __init__(self, channels: Transformation, stride: int) -> None:
        super().__init__(
            ConvNorm(channels.read, channels.inner, kernel=1),
            nn.ReLU(inplace=True),
            ConvNorm(channels.inner, channels.added, stride),
            nn.ReLU(inplace=True),
        )


class Layer(nn.Module):
    """One layer at one scale."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.own = Convolutions(step.own, stride=1)
        self.finer = Convolutions(step.finer, stride=2) if step.finer else None
        self.narrow = ConvNorm(step.gathered, step.narrowed, kernel=1) if step.narrowed else None

    def forward(self, own: Tensor, finer: Tensor | None) -> Tensor:
        """All features of a scale, and of the next finer one, to all of the scale from then on."""
        fresh = [self.own(own)] if self.finer is None else [self.finer(finer), self.own(own)]
        features = torch.cat([own, *fresh], 1)
        return features if self.narrow is None else torch.relu(self.narrow(features))


class MsdBlock(nn.Module):
    """Some waves, and an exit behind them."""

    def __init__(self, waves: Sequence[Wave], spec: MsdSpec) -> None:
        super().__init__()
        self.alive = [tuple(wave.alive) for wave in waves]
        self.waves = nn.ModuleList(
            nn.ModuleDict({str(step.scale): Layer(step) for step in wave.steps}) for wave in waves
        )
        self.coarsest = len(spec.scales) - 1
        read = waves[-1].alive[self.coarsest]
        self.branch = Branch(read, (spec.exit_channels,) * 2, spec.num_classes)

    def forward(self, features: Features) -> Features:
        """What the block before left, to what this one leaves."""
        features = dict(features)
        for layers, alive in zip(self.waves, self.alive, strict=True):
            assert isinstance(layers, nn.ModuleDict)
            for name, layer in layers.items():
                scale = int(name)
                features[scale] = layer(features[scale], features.get(scale - 1))
            features = {scale: features[scale] for scale in alive}
        return features

    def answer(self, features: Features) -> Tensor:
        """What the block leaves, to the exit's logits (n, K)."""
        logits: Tensor = self.branch(features[self.coarsest])
        return logits


class MsdNetwork(BundledNetwork):
    """A multi-scale dense network with an exit after every block."""

    kind: ClassVar[str] = "msdnet"
    fuses = False
    spec: MsdSpec

    def __init__(self, spec: MsdSpec) -> None:
        super().__init__(spec)
        self.first = nn.ModuleList(
            ConvNorm(before, after, stride=2 if scale else 1)
            for scale, (before, after) in enumerate(pairwise([IMAGE_CHANNELS, *spec.widths]))
        )
        waves = waves_of(spec)
        self.blocks = nn.ModuleList(
            MsdBlock(waves[start:end], spec) for start, end in pairwise([0, *spec.ends])
        )
        self._carried = [_values(spec, waves[end - 1]) for end in spec.ends[:-1]]

    @property
    def num_blocks(self) -> int:
        """N."""
        return self.spec.blocks

    def carry_shape(self, partition: int) -> tuple[int, int, int]:
        """(C, 1, 1) after block ``partition``, C = 0 after the last; (3, H, W) for 0."""
        if partition == 0:
            return IMAGE_CHANNELS, *self.image_size
        carried = [sum(values.values()) for values in self._carried]
        return [*carried, 0][partition - 1], 1, 1

    def advance(self, state: State, block: int) -> State:
        """Run block ``block`` (1..N); earlier logits, if there are any, are not looked at."""
        features = self.block(block)(self._unpacked(state.carry, block))
        return State(self._packed(features, block), self.block(block).answer(features))

    def skip_exit(self, state: State, block: int) -> State:
        """Run a block but not its exit."""
        features = self.block(block)(self._unpacked(state.carry, block))
        return State(self._packed(features, block), state.logits[:, :0])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Run the whole network and return the logits of all exits; nothing is packed between."""
        features, exits = self._unpacked(images, 1), []
        for number in range(1, self.num_blocks + 1):
            features = self.block(number)(features)
            exits.append(self.block(number).answer(features))
        return exits

    def block(self, number: int) -> MsdBlock:
        """Block ``number``, 1..N."""
        block = self.blocks[number - 1]
        assert isinstance(block, MsdBlock)
        return block

    def _packed(self, features: Features, block: int) -> Tensor:
        """What a block leaves, to a carry (n, C, 1, 1): scale by scale, place by place."""
        if block == self.num_blocks:
            some = next(iter(features.values()))
            return some.new_empty((len(some), 0, 1, 1))
        flat = [each.permute(0, 2, 3, 1).flatten(1) for each in features.values()]
        return torch.cat(flat, 1)[..., None, None]

    def _unpacked(self, carry: Tensor, block: int) -> Features:
        """What a block reads, from images or from the carry after the block before."""
        if block == 1:
            return self._scales(self.normalised(carry))
        values, sizes = self._carried[block - 2], self.spec.sizes
        parts = carry.flatten(1).split(list(values.values()), 1)
        return {
            scale: part.unflatten(1, (*sizes[scale], -1)).permute(0, 3, 1, 2)
            for scale, part in zip(values, parts, strict=True)
        }

    def _scales(self, images: Tensor) -> Features:
        """Normalised images to the first features of each scale."""
        found = {}
        for scale, convolution in enumerate(self.first):
            found[scale] = images = torch.relu(convolution(images))
        return found
