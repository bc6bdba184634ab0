"""Measures a network: multiplications, block times on this machine, and outcomes.

network ─► count_macs, measure_profile, measure_outcomes ─► Profile, Outcomes
"""

import platform
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from xpi_ray.compression.carry_codec import CarryCodec
from xpi_ray.compression.image import encode_image
from xpi_ray.exits.confidence import exit_entropy, normalised_entropy
from xpi_ray.link.frame import Frame, pack
from xpi_ray.networks.progressive import ProgressiveNetwork, State, joined
from xpi_ray.profiles.outcomes import NO_EXIT, Entropies, Flags, Outcomes
from xpi_ray.profiles.table import Profile
from xpi_ray.profiles.threads import on_threads

WARM_UPS = 5
LEAST = 5  # runs with a batch, however large
DIGITS = 4  # of milliseconds
CHUNK = 250  # images that go through the network at once

Track = Callable[[Iterable[int], str], Iterable[int]]
"""Shows progress: (items, a description) -> the same items."""


def silent(items: Iterable[int], description: str) -> Iterable[int]:
    """Show nothing."""
    del description
    return items


def count_macs(network: ProgressiveNetwork) -> list[int]:
    """Multiply-accumulates of blocks 1..i for one image, for every i in 1..N."""
    image = torch.zeros(1, 3, *network.image_size, dtype=torch.uint8)
    counts = []
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        state = network.start(image)
        for block in range(1, network.num_blocks + 1):
            state = network.advance(state, block)
            counts.append(counter.get_total_flops() // 2)  # it counts two for each
    return counts


def measure_profile(
    network: ProgressiveNetwork,
    ladder: CarryCodec,
    images: Tensor,
    level: int,
    repeats: int = 50,
    threads: int = 1,
) -> Profile:
    """Time every block for batches of each size, and the codec of ``level``, on this machine.

    Args:
        network: Prepared for serving.
        ladder: Codes its carries.
        images: Real ones, uint8 (n, 3, H, W); used in turn.
        level: Rung of the ladder to time.
        repeats: Runs with single images; with more at once there are as many fewer, but ``LEAST``.
        threads: Threads that an image's blocks run on; a serving replica has one.
    """
    with on_threads(threads), torch.inference_mode():
        times = [  # of each batch size (runs, N)
            np.array(_time_runs(network, images, size, max(repeats // size, LEAST)))
            for size in Profile.BATCH_SIZES
        ]
        codec_ms = _time_codec(network, ladder, images, level, repeats)
    median_ms = np.stack([np.median(runs, 0) for runs in times], 1)  # (N, batch sizes)
    p95_ms = np.stack([np.quantile(runs, 0.95, 0) for runs in times], 1)
    encode_ms, decode_ms = np.median(codec_ms, 0).round(DIGITS).tolist()
    return Profile(
        machine=f"{processor()}, {platform.system()}, torch {torch.__version__}",
        threads=threads,
        block_ms=median_ms[:, 0].round(DIGITS).tolist(),
        batch_ms=median_ms.round(DIGITS).tolist(),
        batch_p95_ms=p95_ms.round(DIGITS).tolist(),
        encode_ms=encode_ms,
        decode_ms=decode_ms,
    )


def processor() -> str:
    """The processor's name, or the board's where Linux tells only that; else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.is_file() else []
    told = dict(line.replace("\t", "").split(": ", 1) for line in lines if ": " in line)
    name = told.get("model name") or told.get("Model") or platform.processor()
    return f"{name} ({platform.machine()})" if name else platform.machine()


def _time_runs(
    network: ProgressiveNetwork, images: Tensor, size: int, repeats: int
) -> list[list[float]]:
    """Times of blocks 1..N for a batch, run by run: joined, run, and each exit read, if any."""
    runs = []
    for run in range(WARM_UPS + repeats):
        chosen = [images[(run * size + row) % len(images)].unsqueeze(0) for row in range(size)]
        states = [network.start(image) for image in chosen]
        times = []
        for block in range(1, network.num_blocks + 1):
            started = time.perf_counter()
            state = network.advance(joined(states), block)
            if state.logits.shape[1]:
                for logits in state.logits.numpy():
                    exit_entropy(logits)
            times.append((time.perf_counter() - started) * 1000)
            rows = zip(state.carry.split(1), state.logits.split(1), strict=True)
            states = [State(carry, logits) for carry, logits in rows]
        if run >= WARM_UPS:
            runs.append(times)
    return runs


def _time_codec(
    network: ProgressiveNetwork, ladder: CarryCodec, images: Tensor, level: int, repeats: int
) -> list[tuple[float, float]]:
    """Times to encode and to decode carries wherever that can be, run by run."""
    found = []
    for run in range(WARM_UPS + repeats):
        state = network.start(images[run % len(images)].unsqueeze(0))
        for partition in range(1, network.num_blocks):
            state = network.advance(state, partition)
            if not ladder.levels_at(partition):
                continue
            carry = state.carry[0].numpy()
            started = time.perf_counter()
            segments = ladder.encode(carry, partition, level)
            encoded = time.perf_counter()
            ladder.decode(segments, partition, level)
            decoded = time.perf_counter()
            if run >= WARM_UPS:
                found.append(((encoded - started) * 1000, (decoded - encoded) * 1000))
    return found or [(0.0, 0.0)]  # a single block has no carry to code


@torch.inference_mode()
def measure_outcomes(
    network: ProgressiveNetwork,
    ladder: CarryCodec,
    images: Tensor,
    labels: Tensor,
    resumed: int,
    track: Track = silent,
) -> Outcomes:
    """Run held-out images through every exit, and ``resumed`` of them through every link.

    Never more than ``CHUNK`` carries of one block are held at a time: some networks' are large.

    Args:
        network: Prepared for serving.
        ladder: Codes its carries.
        images: uint8 (n, 3, H, W).
        labels: int64 (n,).
        resumed: m, the samples that are encoded at every level after every block; at most all.
        track: Shows progress.
    """
    resumed = min(resumed, len(images))
    n_blocks, levels = network.num_blocks, ladder.levels
    entropy = np.empty((len(images), n_blocks), np.float32)
    correct = np.empty(entropy.shape, np.bool_)
    shape = (levels, n_blocks, resumed, n_blocks)
    resumed_entropy, resumed_correct = np.empty(shape, np.float32), np.empty(shape, np.bool_)
    sizes = np.zeros((levels, n_blocks))  # of all frames together
    nothing = np.empty(0, np.float32)
    for image in images[:resumed].numpy():
        sizes[:, 0] += len(pack(Frame(bytes(8), 0, 0, nothing, (encode_image(image),))))
    for first in track(range(0, len(images), CHUNK), "outcomes"):
        rows, crossing = slice(first, first + CHUNK), slice(first, min(first + CHUNK, resumed))
        for block, state in _states(network, network.start(images[rows]), 1):
            here = rows, block - 1
            entropy[here], correct[here] = _judge(state.logits, labels[rows])
            if block == n_blocks or first >= resumed:
                continue
            count = crossing.stop - first
            logits = state.logits[:count]
            sent = State(state.carry[:count], logits if network.fuses else logits[:, :0])
            for level, (arrived, size) in enumerate(_cross_link(sent, ladder, block)):
                sizes[level, block] += size
                for later, state_after in _states(network, arrived, block + 1):
                    place = level, block, crossing, later - 1
                    resumed_entropy[place], resumed_correct[place] = _judge(
                        state_after.logits, labels[crossing]
                    )
    for partition in range(n_blocks):  # what was said before the link, or without it
        known = slice(0, partition or n_blocks)
        resumed_entropy[:, partition, :, known] = entropy[:resumed, known]
        resumed_correct[:, partition, :, known] = correct[:resumed, known]
    frame_bytes = (sizes / resumed).astype(np.float32)
    return Outcomes(entropy, correct, resumed_entropy, resumed_correct, frame_bytes)


def _states(network: ProgressiveNetwork, state: State, first: int) -> Iterator[tuple[int, State]]:
    """Blocks ``first``..N, and the state after each."""
    for block in range(first, network.num_blocks + 1):
        state = network.advance(state, block)
        yield block, state


def _judge(logits: Tensor, labels: Tensor) -> tuple[Entropies, Flags]:
    """Entropy and correctness, (n,), of an exit; one that is not there is never sure nor right."""
    if not logits.shape[1]:
        return np.full(len(labels), NO_EXIT, np.float32), np.zeros(len(labels), np.bool_)
    entropy = normalised_entropy(logits.numpy()).astype(np.float32)
    return entropy, (logits.argmax(1) == labels).numpy()


def _cross_link(state: State, ladder: CarryCodec, partition: int) -> list[tuple[State, int]]:
    """What arrives when each sample is encoded, framed and decoded, and the frames' size.

    By level.
    """
    carries: list[list[Tensor]] = [[] for _ in range(ladder.levels)]
    sizes = [0] * ladder.levels
    for carry, logits in zip(state.carry.numpy(), state.logits.numpy(), strict=True):
        for level, (segments, arrived) in enumerate(ladder.at_all_levels(carry, partition)):
            sizes[level] += len(pack(Frame(bytes(8), partition, level, logits, tuple(segments))))
            carries[level].append(torch.from_numpy(arrived))
    logits = state.logits.half().float()  # as a frame rounds them
    return [
        (
            State(torch.stack(each).contiguous(memory_format=torch.channels_last), logits),
            size,
        )
        for each, size in zip(carries, sizes, strict=True)
    ]
