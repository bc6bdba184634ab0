"""Measures a network: multiplications, block times on this machine, and outcomes.

network ─► count_macs, measure_profile, measure_outcomes ─► Profile, Outcomes
"""

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from xpi_ray.compression.carry_codec import CarryCodec
from xpi_ray.compression.image import encode_image
from xpi_ray.exits.confidence import exit_entropy, normalised_entropy
from xpi_ray.link.frame import Frame, pack
from xpi_ray.networks.progressive import ProgressiveNetwork, State
from xpi_ray.profiles.outcomes import NO_EXIT, Entropies, Flags, Outcomes
from xpi_ray.profiles.table import Profile

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
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            times = [  # of each batch size (runs, N)
                np.array(_time_runs(network, images, size, max(repeats // size, LEAST)))
                for size in Profile.BATCH_SIZES
            ]
            codec_ms = _time_codec(network, ladder, images, level, repeats)
    finally:
        torch.set_num_threads(before)
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
            state = states[0] if size == 1 else State(*map(torch.cat, zip(*states, strict=True)))
            state = network.advance(state, block)
            if state.logits.shape[1]:
                for logits in state.logits.numpy():
                    exit_entropy(logits)
            times.append((time.perf_counter() - started) * 1000)
            states = [State(*row) for row in zip(*(part.split(1) for part in state), strict=True)]
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


def measure_outcomes(
    network: ProgressiveNetwork,
    ladder: CarryCodec,
    images: Tensor,
    labels: Tensor,
    resumed: int,
    track: Track = silent,
) -> Outcomes:
    """Run held-out images through every exit, and ``resumed`` of them through every link.

    Args:
        network: Prepared for serving.
        ladder: Codes its carries.
        images: uint8 (n, 3, H, W).
        labels: int64 (n,).
        resumed: m, the samples that are encoded at every level after every block; at most all.
        track: Shows progress.
    """
    resumed = min(resumed, len(images))
    chunks = [
        [network.start(part), *_states(network, network.start(part), 1)]
        for part in images.split(CHUNK)
    ]
    entropy, correct = _judge(chunks, labels)
    states = [
        _merge([chunk[block] for chunk in chunks], resumed) for block in range(len(chunks[0]))
    ]
    n_blocks, levels = network.num_blocks, ladder.levels
    shape = (levels, n_blocks, resumed, n_blocks)
    resumed_entropy = np.broadcast_to(entropy[:resumed], shape).copy()
    resumed_correct = np.broadcast_to(correct[:resumed], shape).copy()
    frame_bytes = np.zeros((levels, n_blocks), np.float32)
    nothing = np.empty(0, np.float32)
    frame_bytes[:, 0] = np.mean(
        [
            len(pack(Frame(bytes(8), 0, 0, nothing, (encode_image(image),))))
            for image in images[:resumed].numpy()
        ]
    )
    for partition in track(range(1, n_blocks), "outcomes"):
        carry, logits = states[partition]
        sent = State(carry, logits if network.fuses else logits[:, :0])
        arrivals = _cross_link(sent, ladder, partition)
        for level, (state, size) in enumerate(arrivals):
            later = [_states(network, State(*part), partition + 1) for part in _split(state)]
            sub_entropy, sub_correct = _judge([[state, *chunk] for chunk in later], labels)
            resumed_entropy[level, partition, :, partition:] = sub_entropy
            resumed_correct[level, partition, :, partition:] = sub_correct
            frame_bytes[level, partition] = size
    return Outcomes(entropy, correct, resumed_entropy, resumed_correct, frame_bytes)


@torch.inference_mode()
def _states(network: ProgressiveNetwork, state: State, first: int) -> list[State]:
    """The states after blocks ``first``..N."""
    states = []
    for block in range(first, network.num_blocks + 1):
        state = network.advance(state, block)
        states.append(state)
    return states


def _judge(chunks: Sequence[Sequence[State]], labels: Tensor) -> tuple[Entropies, Flags]:
    """Entropy and correctness (n, exits) of chunks of states; the first of each has no exit."""
    _, *columns = zip(*chunks, strict=True)
    exits = [torch.cat([state.logits for state in column]).numpy() for column in columns]
    shape = len(exits[0]), len(exits)
    entropy, correct = np.full(shape, NO_EXIT, np.float32), np.zeros(shape, np.bool_)
    for place, logits in enumerate(exits):
        if logits.shape[1]:
            entropy[:, place] = normalised_entropy(logits)
            correct[:, place] = logits.argmax(1) == labels[: len(logits)].numpy()
    return entropy, correct


def _merge(states: Sequence[State], count: int) -> State:
    return State(
        torch.cat([state.carry for state in states])[:count],
        torch.cat([state.logits for state in states])[:count],
    )


def _split(state: State) -> list[tuple[Tensor, Tensor]]:
    return list(zip(state.carry.split(CHUNK), state.logits.split(CHUNK), strict=True))


def _cross_link(state: State, ladder: CarryCodec, partition: int) -> list[tuple[State, float]]:
    """What arrives when each sample is encoded, framed and decoded, and a frame's mean size.

    By level.
    """
    carries: list[list[Tensor]] = [[] for _ in range(ladder.levels)]
    sizes: list[list[int]] = [[] for _ in range(ladder.levels)]
    for carry, logits in zip(state.carry.numpy(), state.logits.numpy(), strict=True):
        for level, (segments, arrived) in enumerate(ladder.at_all_levels(carry, partition)):
            sizes[level].append(
                len(pack(Frame(bytes(8), partition, level, logits, tuple(segments))))
            )
            carries[level].append(torch.from_numpy(arrived))
    logits = state.logits.half().float()  # as a frame rounds them
    return [
        (
            State(torch.stack(each).contiguous(memory_format=torch.channels_last), logits),
            statistics.mean(size),
        )
        for each, size in zip(carries, sizes, strict=True)
    ]
