"""Trains what a bundle's smallest levels need: a transform for the carry of every partition.

    images ─► frozen blocks 1..p ─► carry ─► Transform, rounded ─► frozen blocks p+1..N ─► answer
                 all blocks ─► exact answer ── distillation ──────────────────────────────┘

The loss is rate and distortion (Ballé et al., ICLR'17): the bits that a Laplace distribution for
each latent needs, and how far the last exit's answer is from the exact one. Rounding passes
gradients on unchanged; the rate sees noise in its place. Often all latents but those of the first
segment are left out, so that the most important come first.

Training goes in rounds, until one gains little on validation.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xpi_ray.compression.learned import ENDS
from xpi_ray.compression.transform import LATENTS, Transform
from xpi_ray.errors import DataError
from xpi_ray.networks.progressive import ProgressiveNetwork, State
from xpi_ray.profiles.measure import Track, silent
from xpi_ray.training.data import Split
from xpi_ray.training.objectives import divergence

BATCH = 128
PEAK_LEARNING_RATE, PEAK_RATE_LEARNING_RATE = 2e-3, 2e-2
WARM_UP = 0.15  # of the steps
FIRST_ALONE = 0.3  # of the batches
CARRY_WEIGHT = 0.3  # of the carry's mean squared error, to that of the answer
TEMPERATURE = 3.0
SPREAD = 2.0  # standard deviation of latents at first, in steps
NORMALISED_BY = 512  # images
LEAST_PROBABILITY = 1e-6
LEAST_GAIN = 0.03  # of the validation loss, for which another round is worth its time
MOST_ROUNDS = 6
CHUNK = 250  # images at once
HELD_BYTES = 2**32  # of the largest carry, of all images and their mirror images


class TransformConfig(NamedTuple):
    """How transforms are trained."""

    steps: int
    """Batches of 128 in a round."""
    rate_weight: float
    """Of a bit in the loss."""
    network: str
    """Its ``weights_digest``; transforms of another one are refused."""
    seed: int = 0


class Crossing(NamedTuple):
    """What is at the link after one block, for many images."""

    carry: Tensor
    """(n, C, h, w); float16 where all images are held."""
    logits: Tensor
    """Of the exit before the link, (n, K)."""
    taught: Tensor
    """The last exit's logits from the exact carry, (n, K)."""
    labels: Tensor
    """(n,)."""

    def select(self, rows: Tensor) -> Self:
        """Some of them, their carries float32."""
        return type(self)(self.carry[rows].float(), *(part[rows] for part in self[1:]))

    def batch(self) -> Self:
        """Some of them at random."""
        count = len(self.labels)
        return self.select(torch.randint(count, (min(BATCH, count),)))

    def split(self, images: int) -> Iterator[Self]:
        """All of them, so many at a time, their carries float32."""
        for part in zip(*(each.split(images) for each in self), strict=True):
            yield type(self)(part[0].float(), *part[1:])


class Learner(nn.Module):
    """A transform, and what it is trained with: a Laplace distribution for each latent channel.

    Args:
        channels: Of the carry.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.transform = Transform(channels)
        self.log_width = nn.Parameter(torch.zeros(LATENTS, 1, 1))

    def bits(self, latents: Tensor) -> Tensor:
        """For each of latents (n, 16, h, w), of the unit interval around it."""
        width, far = self.log_width.exp() + 1e-3, latents.abs()

        def below(value: Tensor) -> Tensor:
            tail = torch.exp(-value.abs() / width) / 2
            return torch.where(value < 0, tail, 1 - tail)

        probability = below(0.5 - far) - below(-0.5 - far)
        return -probability.clamp_min(LEAST_PROBABILITY).log2()

    def forward(
        self,
        network: ProgressiveNetwork,
        partition: int,
        crossing: Crossing,
        kept: int,
        rate_weight: float,
    ) -> Tensor:
        """Distortion of answer and carry, and the rate of the first ``kept`` latents; a scalar."""
        exact, logits, taught, labels = crossing
        latents = self.transform.analyse(exact)
        rounded = latents + (latents.round() - latents).detach()
        noisy = latents + torch.rand_like(latents) - 0.5 if self.training else rounded
        bits = self.bits(noisy)[:, :kept].sum((1, 2, 3)).mean()
        known = torch.cat([rounded[:, :kept], torch.zeros_like(rounded[:, kept:])], dim=1)
        height, width = exact.shape[2:]
        carry = self.transform.synthesise(known, (height, width))
        state = State(carry.contiguous(memory_format=torch.channels_last), logits)
        answers = network.finish(state, partition)
        distortion = divergence(answers, taught, TEMPERATURE) + F.cross_entropy(answers, labels)
        error = ((carry - exact) / self.transform.scale).square().mean()
        loss: Tensor = distortion + CARRY_WEIGHT * error + rate_weight * bits
        return loss


class _Progress(NamedTuple):
    """Of the training for one partition."""

    learner: Learner
    rounds: int
    loss: float
    """On validation."""
    finished: bool


def train_transforms(
    network: ProgressiveNetwork,
    train: Split,
    validation: Split,
    config: TransformConfig,
    folder: Path,
    track: Track = silent,
    first: int = 1,
) -> dict[int, Transform]:
    """Train one for each partition ``first``..N-1, going on from what the folder holds.

    Where a carry has the shape of the one before, training begins with that one's transform, as
    residual blocks speak much the same language.

    Args:
        network: Prepared for serving; left as it is.
        train: Images and labels.
        validation: Likewise; another round is trained while it gains by them.
        config: How.
        folder: Where each transform is kept after every round.
        track: Shows progress.
        first: The first partition.

    Raises:
        DataError: The folder holds transforms that were trained otherwise, or damaged ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    transforms: dict[int, Transform] = {}
    upright = validation._replace(mirrored=False)
    ahead = enumerate(zip(crossings(network, train), crossings(network, upright), strict=True), 1)
    before: Learner | None = None
    for partition in range(first, network.num_blocks):
        path = folder / f"block{partition}.pt"
        shape = network.carry_shape(partition)
        alike = network.carry_shape(partition - 1) == shape
        progress = _read(path, config, shape[0]) if path.is_file() else None
        if progress is None or not progress.finished:
            sides, (held_out,) = next(found for at, found in ahead if at == partition)
            if progress is None:
                progress = _begin(sides[0], config, partition, before if alike else None)
            while not progress.finished:
                progress = _next_round(network, partition, sides, held_out, config, progress, track)
                _write(path, config, progress)
        before = progress.learner
        transforms[partition] = before.transform.eval().requires_grad_(False)
    return transforms


def _begin(
    side: Crossing, config: TransformConfig, partition: int, before: Learner | None
) -> _Progress:
    """With random weights whose latents are wide enough to round, or those of ``before``."""
    torch.manual_seed(config.seed * 1_000_003 + partition)
    carry = side.carry[:NORMALISED_BY].float()
    learner = Learner(carry.shape[1])
    if before is not None:
        learner.load_state_dict(before.state_dict())
    learner.transform.normalise(carry)
    if before is None:
        with torch.no_grad():
            learner.transform.analysis.weight *= SPREAD / learner.transform.analyse(carry).std()
    return _Progress(learner, 0, math.inf, False)


def _next_round(
    network: ProgressiveNetwork,
    partition: int,
    sides: Sequence[Crossing],
    held_out: Crossing,
    config: TransformConfig,
    progress: _Progress,
    track: Track,
) -> _Progress:
    """Train on; what a round made worse is undone."""
    rounds = progress.rounds + 1
    torch.manual_seed((config.seed * 1_000_003 + partition) * MOST_ROUNDS + rounds)
    learner = copy.deepcopy(progress.learner)
    title = f"transform after block {partition}, round {rounds}"
    train_round(learner, network, partition, sides, config, track, title)
    loss = validation_loss(learner, network, partition, held_out, config.rate_weight)
    gained = loss < (1 - LEAST_GAIN) * progress.loss
    if loss >= progress.loss:
        learner, loss = progress.learner, progress.loss
    return _Progress(learner, rounds, loss, not gained or rounds == MOST_ROUNDS)


def train_round(
    learner: Learner,
    network: ProgressiveNetwork,
    partition: int,
    sides: Sequence[Crossing],
    config: TransformConfig,
    track: Track = silent,
    title: str = "",
) -> None:
    """Train in place; in a round the learning rate rises and falls to zero.

    Args:
        learner: As it is to begin.
        network: Prepared for serving.
        partition: 1..N-1.
        sides: Images there; a batch is of one of them.
        config: How.
        track: Shows progress.
        title: What to call it.
    """
    learner.requires_grad_(True).train()
    transform = list(learner.transform.parameters())
    peaks = [PEAK_LEARNING_RATE, PEAK_RATE_LEARNING_RATE]
    optimizer = torch.optim.Adam([{"params": transform}, {"params": [learner.log_width]}])
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peaks, total_steps=config.steps, pct_start=WARM_UP
    )
    for _ in track(range(config.steps), title):
        batch = sides[int(torch.randint(len(sides), ()))].batch()
        kept = ENDS[1] if torch.rand(()) < FIRST_ALONE else LATENTS
        loss = learner(network, partition, batch, kept, config.rate_weight)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(transform, 1.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def validation_loss(
    learner: Learner,
    network: ProgressiveNetwork,
    partition: int,
    held_out: Crossing,
    rate_weight: float,
) -> float:
    """The loss on images that were not trained on, with the first segment alone as often."""
    learner.eval()
    total = 0.0
    for crossing in held_out.split(CHUNK):
        first, whole = (
            float(learner(network, partition, crossing, kept, rate_weight)) for kept in ENDS[1:]
        )
        loss = FIRST_ALONE * first + (1 - FIRST_ALONE) * whole
        total += loss * len(crossing.labels)
    return total / len(held_out.labels)


@torch.no_grad()
def crossings(network: ProgressiveNetwork, train: Split) -> Iterator[list[Crossing]]:
    """At every partition in turn: the images as they are and, where that may be, mirrored.

    All blocks but one have run when the next is asked for, so a step of training costs only what
    is behind the link. Images are as many as memory allows, see ``HELD_BYTES``.
    """
    images, labels = train.images, train.labels
    shapes = [network.carry_shape(partition) for partition in range(1, network.num_blocks)]
    largest = max((math.prod(shape) for shape in shapes), default=1)
    images = images[: HELD_BYTES // (2 * largest * torch.float16.itemsize)]
    labels = labels[: len(images)]
    sides = []
    for side in (images, images.flip(3)) if train.mirrored else (images,):
        taught = torch.cat([network(part)[-1] for part in side.split(CHUNK)])
        start = network.start(side)
        sides.append(Crossing(start.carry, start.logits, taught, labels))
    for block in range(1, network.num_blocks):
        sides = [_advance(network, side, block) for side in sides]
        yield sides


def _advance(network: ProgressiveNetwork, side: Crossing, block: int) -> Crossing:
    parts = [network.advance(State(part.carry, part.logits), block) for part in side.split(CHUNK)]
    carry = torch.cat([state.carry.half() for state in parts])
    return side._replace(carry=carry, logits=torch.cat([state.logits for state in parts]))


def _write(path: Path, config: TransformConfig, progress: _Progress) -> None:
    saved = {
        "config": list(config),
        "learner": progress.learner.state_dict(),
        "rounds": progress.rounds,
        "loss": progress.loss,
        "finished": progress.finished,
    }
    part = path.with_suffix(".part")
    torch.save(saved, part)
    part.rename(path)


def _read(path: Path, config: TransformConfig, channels: int) -> _Progress:
    """What ``_write`` wrote."""
    learner = Learner(channels)
    try:
        saved: dict[str, Any] = torch.load(path, weights_only=True)
        trained = TransformConfig(*saved["config"])
        if trained == config:
            learner.load_state_dict(saved["learner"])
        progress = _Progress(learner, saved["rounds"], saved["loss"], saved["finished"])
    except Exception as err:  # torch, zipfile and pickle raise all kinds on damage
        raise DataError(
            f"{path} is damaged ({type(err).__name__}); delete it to begin anew"
        ) from err
    if trained != config:
        raise DataError(
            f"{path} was trained with {trained}; use the same settings or another folder"
        )
    return progress
