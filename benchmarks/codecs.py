"""Every quantiser with every coder on the same carries: bytes, accuracy and time.

    python -m benchmarks.codecs [--bundle FOLDER] [--images 1000] [--coded 200]

At every partition the carries of test images are quantised, and the blocks behind run on what is
left: ``accuracy`` is the last exit's. Of the first ``--coded`` images the symbols are coded by
every coder: ``bytes_mean`` and ``bytes_p95`` are payloads, without a frame's header and logits;
``encode_ms`` and ``decode_ms`` are medians on one core, quantiser and coder together.
``bound_bytes`` is what an ideal coder needs that knows each channel's distribution in these
very images and looks at nothing else. Models are learnt from training images.

Rows of coder ``ladder`` are the bundle's own levels, of quantiser ``step`` where the carry itself
is sent, ``latents`` where a learned transform of it is. ``blocks_ms`` is what the blocks before the
link take for one image on the same core. Rows of ``frame_prefix`` tell what a frame is worth of
which only a fraction arrives.

Writes ``benchmarks/results/codecs.json`` and ``frame_prefix.json``.
"""

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from benchmarks.result import Rows, write
from benchmarks.runs import sample
from xpi_ray.bundle import Bundle
from xpi_ray.compression.carry_codec import CarryCodec
from xpi_ray.compression.centres import assign, look_up
from xpi_ray.compression.coders import Coder, HuffmanCoder, Lz4Coder, LzwCoder, Symbols
from xpi_ray.compression.context_model import ContextModel
from xpi_ray.compression.ladder import LAYERS
from xpi_ray.compression.quantizer import BITS, MinMaxQuantizer, Quantized
from xpi_ray.compression.range_coder import RangeCoder
from xpi_ray.compression.symbol_model import ChannelModel
from xpi_ray.errors import FrameError
from xpi_ray.exits.confidence import normalised_entropy
from xpi_ray.link.frame import Frame, pack, unpack
from xpi_ray.networks.progressive import ProgressiveNetwork, State
from xpi_ray.training.data import Split, load
from xpi_ray.training.packing import carries

CHUNK = 250  # images at once
LEARNT_FROM = 300  # training images
TIMED = 50  # images
BYTE_CODERS: tuple[Coder, ...] = (
    Lz4Coder(),
    Lz4Coder(shuffled=True),
    LzwCoder(),
    HuffmanCoder(),
)
PER_CHANNEL = (2, 4, 8)  # bits, beside those per tensor
FRACTIONS = (0.25, 0.5, 0.75, 1.0)

Carries = NDArray[np.float32]


class Quantiser(NamedTuple):
    """One way from values to symbols and back."""

    name: str
    alphabet: int
    side_bytes: int
    """What goes beside the symbols."""
    quantise: Callable[[Carries], Any]
    """A carry to what ``restore`` needs; its first part, or all of it, are the symbols."""
    restore: Callable[[Any], Carries]

    def symbols(self, carry: Carries) -> Symbols:
        """Of one carry."""
        found = self.quantise(carry)
        symbols: Symbols = found.symbols if isinstance(found, Quantized) else found
        return symbols


def quantisers(bundle: Bundle, partition: int) -> Iterator[Quantiser]:
    """Min-max ones, and the bundle's centres for a partition."""
    channels = bundle.network.carry_shape(partition)[0]
    for quantizer in (
        *(MinMaxQuantizer(bits) for bits in BITS),
        *(MinMaxQuantizer(bits, per_channel=True) for bits in PER_CHANNEL),
    ):
        ranges = channels if quantizer.per_channel else 1
        yield Quantiser(
            quantizer.name, quantizer.alphabet, 8 * ranges, quantizer.quantize, quantizer.dequantize
        )
    prefix = f"block{partition}_centres"
    for name, values in sorted(bundle.centres.items()):
        if name.startswith(prefix):
            centres = values.numpy()
            yield Quantiser(
                f"centres{len(centres)}",
                len(centres),
                0,
                lambda carry, own=centres: assign(carry, own),
                lambda symbols, own=centres: look_up(symbols, own),
            )


def bound_bytes(symbols: Symbols) -> float:
    """Of each channel's own histogram over all samples (n, C, h, w), for one sample."""
    bits = 0.0
    for channel in symbols.swapaxes(0, 1):
        counts = np.unique(channel, return_counts=True)[1]
        bits += float((counts * np.log2(counts.sum() / counts)).sum())
    return bits / 8 / len(symbols)


def timed_ms(call: Callable[[Any], object], inputs: list[Any]) -> float:
    """Median over inputs, each once, after one that warms up."""
    call(inputs[0])
    times_ms = []
    for each in inputs:
        started = time.perf_counter()
        call(each)
        times_ms.append((time.perf_counter() - started) * 1000)
    return round(median(times_ms), 3)


def code_all(
    quantiser: Quantiser, held_out: Carries, learnt_from: Carries
) -> Iterator[dict[str, float | int | str]]:
    """What every coder makes of a quantiser's symbols; a row's figures at a time."""
    symbols = [quantiser.symbols(carry) for carry in held_out]
    known = np.stack([quantiser.symbols(carry) for carry in learnt_from])
    bound = bound_bytes(np.stack(symbols))
    models = [kind.fit(known, quantiser.alphabet) for kind in (ChannelModel, ContextModel)]
    coders: list[Coder] = [*BYTE_CODERS, *map(RangeCoder, models)]
    for coder in coders:
        coded = [coder.encode(each, quantiser.alphabet) for each in symbols]
        sizes = [quantiser.side_bytes + len(data) for data in coded]

        def encode(carry: Carries, coder: Coder = coder) -> object:
            return coder.encode(quantiser.symbols(carry), quantiser.alphabet)

        decode_ms = timed_ms(
            lambda data, coder=coder: coder.decode(data, symbols[0].shape, quantiser.alphabet),
            coded[:TIMED],
        )
        restore_ms = timed_ms(quantiser.restore, [quantiser.quantise(c) for c in held_out[:TIMED]])
        yield {
            "coder": coder.name,
            "bytes_mean": round(float(np.mean(sizes)), 1),
            "bytes_p95": round(float(np.percentile(sizes, 95)), 1),
            "bound_bytes": round(quantiser.side_bytes + bound, 1),
            "encode_ms": timed_ms(encode, list(held_out[:TIMED])),
            "decode_ms": round(decode_ms + restore_ms, 3),
        }


@torch.inference_mode()
def time_blocks(network: ProgressiveNetwork, images: torch.Tensor) -> list[float]:
    """Median milliseconds of every block, over images (n, 3, H, W) one by one."""
    states = [network.start(image[None]) for image in images]
    times_ms = []
    for block in range(1, network.num_blocks + 1):
        times_ms.append(timed_ms(lambda state, block=block: network.advance(state, block), states))
        states = [network.advance(state, block) for state in states]
    return times_ms


@torch.inference_mode()
def accuracy(
    network: ProgressiveNetwork,
    arrived: Carries,
    state: State,
    partition: int,
    labels: torch.Tensor,
) -> float:
    """The last exit's, on carries (n, C, h, w) as they arrived."""
    found = last_logits(network, arrived, state, partition)
    return round(float((found.argmax(1) == labels).float().mean()), 4)


@torch.inference_mode()
def last_logits(
    network: ProgressiveNetwork, arrived: Carries, state: State, partition: int
) -> torch.Tensor:
    """Of the last exit, (n, K), on carries (n, C, h, w) as they arrived."""
    parts = zip(torch.from_numpy(arrived).split(CHUNK), state.logits.split(CHUNK), strict=True)
    return torch.cat(
        [
            network.finish(
                State(carry.contiguous(memory_format=torch.channels_last), logits), partition
            )
            for carry, logits in parts
        ]
    )


class Held(NamedTuple):
    """Held-out images after one block."""

    network: ProgressiveNetwork
    """Runs what is behind the link."""
    ladder: CarryCodec
    trusted: NDArray[np.bool_]
    """See ``Outcomes.edge_trusted``."""
    state: State
    """Of all images."""
    partition: int
    """1..N-1."""
    labels: torch.Tensor
    """(n,)."""


def ladder_row(held: Held, level: int, coded: list[list[bytes]]) -> dict[str, float | int | str]:
    """One of the bundle's own levels, by the segments of every image."""
    network, ladder, _, state, partition, labels = held
    arrived = np.stack([ladder.decode(segments, partition, level) for segments in coded])
    sizes = [sum(map(len, segments)) for segments in coded]
    return {
        "quantiser": "step" if level < LAYERS else "latents",
        "level": level,
        "coder": "ladder",
        "bytes_mean": round(float(np.mean(sizes)), 1),
        "bytes_p95": round(float(np.percentile(sizes, 95)), 1),
        "encode_ms": timed_ms(
            lambda carry: ladder.encode(carry, partition, level), list(state.carry.numpy()[:TIMED])
        ),
        "decode_ms": timed_ms(
            lambda segments: ladder.decode(segments, partition, level), coded[:TIMED]
        ),
        "accuracy": accuracy(network, arrived, state, partition, labels),
    }


def prefix_rows(
    held: Held, level: int, coded: list[list[bytes]]
) -> Iterator[dict[str, float | int | str]]:
    """What fractions of the frames of one level are worth."""
    frames = [
        pack(Frame(bytes(8), held.partition, level, logits, tuple(segments)))
        for segments, logits in zip(coded, held.state.logits.numpy(), strict=True)
    ]
    for fraction in FRACTIONS:
        found = cut_short(held, frames, fraction)
        yield {"level": level, "fraction": fraction, "accuracy": found}


def cut_short(held: Held, frames: list[bytes], fraction: float) -> float:
    """Accuracy when so much of each frame arrives, as the router answers.

    Without a whole segment the edge's exit answers; also where it is surer than the last one, and
    the level that arrives is one at which that is trusted.

    Args:
        held: What the frames were made of.
        frames: Whole ones.
        fraction: Of a frame's bytes, 0..1.
    """
    network, ladder, trusted, state, partition, labels = held
    answered, carries_, compared = [], [], []
    for number, frame in enumerate(frames):
        with contextlib.suppress(FrameError):
            found = unpack(frame[: int(fraction * len(frame))])
            carries_.append(ladder.decode(found.segments, partition, found.level))
            answered.append(number)
            level = ladder.arrived_level(found.segments, partition, found.level)
            compared.append(bool(trusted[level, partition]))
    logits = state.logits.clone()
    if answered:
        edge = state.logits[answered]
        last = last_logits(network, np.stack(carries_), State(edge, edge), partition)
        surer = normalised_entropy(edge.numpy()) < normalised_entropy(last.numpy())
        keep = torch.from_numpy(surer & np.array(compared))[:, None]
        logits[answered] = torch.where(keep, edge, last)
    return round(float((logits.argmax(1) == labels).float().mean()), 4)


@torch.inference_mode()
def measure(
    bundle: Bundle, test: Split, train: Split, coded: int, progress: Progress
) -> tuple[Rows, Rows]:
    """All rows of both results."""
    network = bundle.network.prepare()
    stride = max(1, len(train.labels) // LEARNT_FROM)
    learnt_from = carries(network, train.images[::stride][:LEARNT_FROM])
    rows, prefixes = Rows(), Rows()
    trusted = bundle.outcomes.edge_trusted()
    blocks_ms = time_blocks(network, test.images[:TIMED])
    states = [network.start(part) for part in test.images.split(CHUNK)]
    for partition in progress.track(range(1, network.num_blocks), description="partitions"):
        states = [network.advance(state, partition) for state in states]
        carry = torch.cat([state.carry for state in states]).contiguous()
        state = State(carry, torch.cat([state.logits for state in states]))
        held_out = carry.numpy()
        exact = accuracy(network, held_out, state, partition, test.labels)
        edge = round(float((state.logits.argmax(1) == test.labels).float().mean()), 4)
        key = {"partition": partition, "exact_accuracy": exact, "edge_accuracy": edge}
        for quantiser in quantisers(bundle, partition):
            left = np.stack([quantiser.restore(quantiser.quantise(each)) for each in held_out])
            kept = accuracy(network, left, state, partition, test.labels)
            rows += [
                {**key, "quantiser": quantiser.name, **figures, "accuracy": kept}
                for figures in code_all(quantiser, held_out[:coded], learnt_from[partition])
            ]
        held = Held(network, bundle.ladder, trusted, state, partition, test.labels)
        before = {"blocks_ms": round(sum(blocks_ms[:partition]), 3)}
        for level in range(bundle.ladder.levels_at(partition)):
            segments = [bundle.ladder.encode(each, partition, level) for each in held_out]
            rows.append({**key, **before, **ladder_row(held, level, segments)})
            prefixes += [{**key, **row} for row in prefix_rows(held, level, segments)]
    return rows, prefixes


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", help="folder or name; the default one if left out")
    parser.add_argument("--images", type=int, default=1_000, help="of the test split")
    parser.add_argument("--coded", type=int, default=200, help="of these, for bytes and times")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bundle = Bundle.load(arguments.bundle)
    splits = load(bundle.manifest.name)
    with Progress() as progress:
        test = sample(splits.test, arguments.images)
        rows, prefixes = measure(bundle, test, splits.train, arguments.coded, progress)
    settings = {
        "bundle": bundle.digest.hex(),
        "images": arguments.images,
        "coded": arguments.coded,
        "learnt_from": LEARNT_FROM,
        "timed": TIMED,
    }
    print(write("codecs", settings, rows))
    print(write("frame_prefix", settings, prefixes))


if __name__ == "__main__":
    main()
