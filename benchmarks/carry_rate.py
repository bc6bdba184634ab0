"""How many bytes does a carry need to cross the link, and what does its loss cost in accuracy?

    python -m benchmarks.carry_rate [--trainings NAME ...] [--run NAME=FOLDER ...]

At every partition and level the carries of the same test images are quantised, coded, decoded, and
the blocks behind run on what arrived. Levels are the ladder's min-max ones, and learned centres:
those of the run where it was trained with them, else ones that are spread over carries of training
images as that training begins with.

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
from xpi_ray.compression.codec import LADDER, RANGE, QuantizedCodec
from xpi_ray.compression.coders import Lz4Coder
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
    """A level of the ladder."""

    def cross(carry: NDArray[np.float32]) -> Arrived:
        quantized = codec.quantizer.quantize(carry)
        size = RANGE.size + len(codec.coder.encode(quantized.symbols))
        arrived = codec.quantizer.dequantize(quantized, carry.shape)
        return Arrived(arrived, size, unpack(quantized.symbols, codec.quantizer.bits, carry.size))

    return cross


def by_centres(centres: Centres) -> Cross:
    """A level of learned centres, whose table both ends have."""
    values = centres.ascending().detach().numpy()
    bits, coder = (len(values) - 1).bit_length(), Lz4Coder()

    def cross(carry: NDArray[np.float32]) -> Arrived:
        symbols = assign(carry, values)
        size = len(coder.encode(pack(symbols, bits)))
        return Arrived(look_up(symbols, values), size, symbols.ravel())

    return cross


def pack(symbols: NDArray[np.uint8], bits: int) -> bytes:
    """Symbols below 2^bits one behind the other, the high bit first; zeros fill the last byte."""
    every_bit = np.unpackbits(symbols.reshape(-1, 1), axis=1)  # (symbols, 8)
    return np.packbits(every_bit[:, 8 - bits :]).tobytes()


def unpack(data_: bytes, bits: int, count: int) -> NDArray[Any]:
    """The symbols that a min-max quantiser laid out at 4, 8 or 16 bits each, (count,)."""
    if bits == 16:
        return np.frombuffer(data_, "<u2")
    whole = np.frombuffer(data_, np.uint8)
    return whole if bits == 8 else np.stack([whole >> 4, whole & 15], axis=1).ravel()[:count]


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
    ladder = [codec for codec in LADDER if isinstance(codec, QuantizedCodec)]
    learned = run.objective.quantization if run.objective is not None else None
    if learned is None:
        learned = CarryQuantization(run.network.num_blocks)
        learned.initialise(block, carry)
    return {codec.name: by_min_max(codec) for codec in ladder} | {
        f"centres{count}-{Lz4Coder.name}": by_centres(learned.centres(block, count))
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
