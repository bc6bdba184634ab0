"""Measures a network: multiplications, block times on this machine, and outcomes.

network ─► count_macs, measure_profile, measure_outcomes ─► Profile, Outcomes
"""

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from xpi_ray.compression.image import encode_image
from xpi_ray.compression.ladder import Ladder
from xpi_ray.exits.confidence import normalised_entropy
from xpi_ray.link.frame import Frame, pack
from xpi_ray.networks.progressive import ProgressiveNetwork, State
from xpi_ray.profiles.outcomes import Outcomes
from xpi_ray.profiles.table import Profile

WARM_UPS = 10
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
    ladder: Ladder,
    images: Tensor,
    level: int,
    repeats: int = 50,
    threads: int = 1,
) -> Profile:
    """Time every block and the codec of ``level`` for single images on this machine.

    Args:
        network: Prepared for serving.
        ladder: Codes its carries.
        images: Real ones, uint8 (n, 3, H, W); used in turn.
        level: Rung of the ladder to time.
        repeats: Runs of which the median counts.
        threads: Threads that an image's blocks run on; a serving replica has one.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _measure_profile(network, ladder, images, level, repeats)
    finally:
        torch.set_num_threads(before)


def _measure_profile(
    network: ProgressiveNetwork, ladder: Ladder, images: Tensor, level: int, repeats: int
) -> Profile:
    times: list[list[float]] = [[] for _ in range(network.num_blocks)]
    codec_ms: list[tuple[float, float]] = []
    with torch.inference_mode():
        for run in range(WARM_UPS + repeats):
            state = network.start(images[run % len(images)].unsqueeze(0))
            for block in range(1, network.num_blocks + 1):
                started = time.perf_counter()
                state = network.advance(state, block)
                if run >= WARM_UPS:
                    times[block - 1].append((time.perf_counter() - started) * 1000)
                if run >= WARM_UPS and block < network.num_blocks:
                    codec_ms.append(_time_codec(ladder, block, level, state))
    codec_ms = codec_ms or [(0.0, 0.0)]  # a single block has no carry to code
    return Profile(
        machine=f"{platform.machine()} {platform.system()}, torch {torch.__version__}",
        threads=torch.get_num_threads(),
        block_ms=tuple(round(statistics.median(block), 4) for block in times),
        encode_ms=round(statistics.median(encode for encode, _ in codec_ms), 4),
        decode_ms=round(statistics.median(decode for _, decode in codec_ms), 4),
    )


def measure_outcomes(
    network: ProgressiveNetwork,
    ladder: Ladder,
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
        arrivals = _cross_link(states[partition], ladder, partition)
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


def _judge(
    chunks: Sequence[Sequence[State]], labels: Tensor
) -> tuple[
    np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
]:
    """Entropy and correctness (n, exits) of chunks of states; the first of each has no exit."""
    exits = [torch.stack([state.logits for state in chunk[1:]], dim=1).numpy() for chunk in chunks]
    logits = np.concatenate(exits)  # (n, exits, K)
    n, depth, classes = logits.shape
    entropy = np.asarray(normalised_entropy(logits.reshape(-1, classes))).reshape(n, depth)
    correct = logits.argmax(2) == labels[:n].numpy()[:, None]
    return entropy.astype(np.float32), correct


def _merge(states: Sequence[State], count: int) -> State:
    return State(
        torch.cat([state.carry for state in states])[:count],
        torch.cat([state.logits for state in states])[:count],
    )


def _split(state: State) -> list[tuple[Tensor, Tensor]]:
    return list(zip(state.carry.split(CHUNK), state.logits.split(CHUNK), strict=True))


def _cross_link(state: State, ladder: Ladder, partition: int) -> list[tuple[State, float]]:
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


def _time_codec(ladder: Ladder, partition: int, level: int, state: State) -> tuple[float, float]:
    carry = state.carry[0].numpy()
    started = time.perf_counter()
    segments = ladder.encode(carry, partition, level)
    encoded = time.perf_counter()
    ladder.decode(segments, partition, level)
    return (encoded - started) * 1000, (time.perf_counter() - encoded) * 1000
