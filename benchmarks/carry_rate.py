"""How many bytes does a carry need to cross the link, and what does its loss cost in accuracy?

    python -m benchmarks.carry_rate [--trainings NAME ...] [--run NAME=FOLDER ...]

At every partition and level the carries of the same test images are quantised, coded, decoded, and
the blocks behind run on what arrived. Levels are min-max quantisation to 16, 8 and 4 bits, and
learned centres: those of the run where it was trained with them, else ones that are spread over
carries of training images as that training begins with.

Writes ``benchmarks/results/carry_rate.json``. ``bytes_mean`` is a whole frame: header, the exit's
logits, and the payload, which is the symbols at whole bits each (4, 3 or 2 for 16, 8 or 4 centres),
through LZ4, and for min-max the range. ``entropy_bytes`` is the symbols alone, by the entropy of
their distribution over all these images: what an ideal coder needs that knows this distribution and
looks at no neighbours. ``accuracy`` is the last exit's.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.result import Rows
from benchmarks.runs import Run, add_arguments, data, measure_all
from xpi_ray.compression.centres import Centres, assign, look_up
from xpi_ray.compression.codec import QuantizedCodec
from xpi_ray.compression.coders import Lz4Coder
from xpi_ray.compression.quantizer import MinMaxQuantizer
from xpi_ray.link.frame import HEADER_BYTES
from xpi_ray.networks.progressive import State
from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.profiles.measure import Track
from xpi_ray.training.data import Split
from xpi_ray.training.quantization import CarryQuantization
from xpi_ray.training.stages import CENTRE_IMAGES

CHUNK = 250  # images at once
MOST_SYMBOLS = 2**16
LOGIT_BYTES = 4
MIN_MAX = [QuantizedCodec(MinMaxQuantizer(bits), Lz4Coder()) for bits in (16, 8, 4)]


class Arrived(NamedTuple):
    """One carry after the link."""

    carry: NDArray[np.float32]
    payload_bytes: int
    symbols: NDArray[Any]
    """Unsigned, one for each value."""


Cross = Callable[[NDArray[np.float32]], Arrived]


@dataclass
class Tally:
    """What became of all images at one partition and level."""

    right: int = 0
    payload_bytes: list[int] = field(default_factory=list)
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(MOST_SYMBOLS, np.int64))

    def row(self, network: XpiNetwork) -> dict[str, float | int | str]:
        """Its figures."""
        images = len(self.payload_bytes)
        around = HEADER_BYTES + LOGIT_BYTES * network.num_classes
        return {
            "bytes_mean": round(around + float(np.mean(self.payload_bytes)), 1),
            "entropy_bytes": round(entropy_bytes(self.counts) / images, 1),
            "accuracy": round(self.right / images, 4),
        }


def by_min_max(codec: QuantizedCodec) -> Cross:
    """Between the carry's own minimum and maximum."""

    def cross(carry: NDArray[np.float32]) -> Arrived:
        quantized = codec.quantizer.quantize(carry)
        arrived = codec.quantizer.dequantize(quantized)
        return Arrived(arrived, len(codec.encode(carry)), quantized.symbols.ravel())

    return cross


def by_centres(centres: Centres) -> Cross:
    """A level of learned centres, whose table both ends have."""
    values = centres.ascending().detach().numpy()
    coder = Lz4Coder()

    def cross(carry: NDArray[np.float32]) -> Arrived:
        symbols = assign(carry, values)
        size = len(coder.encode(symbols, len(values)))
        return Arrived(look_up(symbols, values), size, symbols.ravel())

    return cross


def entropy_bytes(counts: NDArray[np.int64]) -> float:
    """What an ideal coder makes of all the symbols counted, from their distribution alone."""
    seen = counts[counts > 0]
    return float((seen * np.log2(seen.sum() / seen)).sum() / 8)


def levels(run: Run, block: int, carry: torch.Tensor) -> dict[str, Cross]:
    """All ways to cross after a block.

    Args:
        run: Its centres count, if it has any.
        block: 1..N-1.
        carry: Of training images, to spread centres over where the run has none.
    """
    learned = run.objective.quantization if run.objective is not None else None
    if learned is None:
        learned = CarryQuantization(run.network.num_blocks)
        learned.initialise(block, carry)
    return {codec.name: by_min_max(codec) for codec in MIN_MAX} | {
        f"centres{count}-{Lz4Coder().name}": by_centres(learned.centres(block, count))
        for count in learned.counts
    }


@torch.inference_mode()
def measure(run: Run, test: Split, track: Track) -> Rows:
    """Bytes and accuracy at every partition and level."""
    network = run.network.prepare()
    state = network.start(data(run.dataset).train.images[:CENTRE_IMAGES])
    ways: dict[int, dict[str, Cross]] = {}
    for block in range(1, network.num_blocks):
        state = network.advance(state, block)
        ways[block] = levels(run, block, state.carry)
    tallies = {(block, name): Tally() for block, names in ways.items() for name in names}
    parts = list(zip(test.images.split(CHUNK), test.labels.split(CHUNK), strict=True))
    for number in track(range(len(parts)), f"{run.training} {run.seed}"):
        images, labels = parts[number]
        state = network.start(images)
        for block, crossings in ways.items():
            state = network.advance(state, block)
            for name, cross in crossings.items():
                _cross_all(network, state, block, cross, labels, tallies[block, name])
    return [
        {"partition": block, "level": name, **tally.row(network)}
        for (block, name), tally in tallies.items()
    ]


def _cross_all(
    network: XpiNetwork, state: State, block: int, cross: Cross, labels: torch.Tensor, tally: Tally
) -> None:
    """Send a batch over the link, one image at a time, and run what is behind it."""
    arrived = [cross(carry) for carry in state.carry.numpy()]
    carry = torch.from_numpy(np.stack([one.carry for one in arrived]))
    state = State(carry.contiguous(memory_format=torch.channels_last), state.logits)
    for later in range(block + 1, network.num_blocks + 1):
        state = network.advance(state, later)
    symbols = np.concatenate([one.symbols for one in arrived])
    tally.counts += np.bincount(symbols, minlength=MOST_SYMBOLS)
    tally.payload_bytes += [one.payload_bytes for one in arrived]
    tally.right += int((state.logits.argmax(1) == labels).sum())


def main() -> None:
    """Measure what is not measured yet, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    print(measure_all("carry_rate", parser.parse_args(), {}, measure))


if __name__ == "__main__":
    main()
