"""Measures what plans are made of: times of blocks and exits, and what exits say of images.

network, images ─► measure_costs ─► Costs        on this machine
              └──► exit_logits, logits_with_skips ─► confidences, rights ─► predictor
"""

import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xpi_ray.elastic.guide import Costs
from xpi_ray.elastic.predictor import some_exits
from xpi_ray.exits.confidence import exit_entropy
from xpi_ray.networks.progressive import ProgressiveNetwork
from xpi_ray.profiles.threads import on_threads

WARM_UPS = 5
LEAST_EXIT_MS = 1e-4  # an exit within the clock's noise takes some time nevertheless
CHUNK = 250  # images that go through the network at once
SKIPPING_CHUNK = 10  # likewise, which have run the same exits


@torch.inference_mode()
def measure_costs(network: ProgressiveNetwork, images: Tensor, repeats: int = 50) -> Costs:
    """Time each block without its exit, and the exit, one image at a time on one thread.

    The last block is never run without its exit: all of it counts as its exit's.

    Args:
        network: Prepared for serving.
        images: Real ones, uint8 (n, 3, H, W); used in turn.
        repeats: Images that are timed.
    """
    with on_threads(1):
        runs = [_time_run(network, images[run % len(images)]) for run in range(WARM_UPS + repeats)]
    without_ms, with_ms = np.median(np.array(runs[WARM_UPS:]), 0)
    exit_ms = np.full(network.num_blocks, np.inf)
    exits = np.array(network.exits) - 1
    exit_ms[exits] = np.maximum(with_ms - without_ms, LEAST_EXIT_MS)[exits]
    return Costs(without_ms, exit_ms)


def _time_run(network: ProgressiveNetwork, image: Tensor) -> tuple[list[float], list[float]]:
    """Of each block: the time without its exit and with it, in ms."""
    state = network.start(image.unsqueeze(0))
    without_ms, with_ms = [], []
    for block in range(1, network.num_blocks + 1):
        started = time.perf_counter()
        if block < network.num_blocks:
            network.skip_exit(state, block)
        skipped = time.perf_counter()
        state = network.advance(state, block)
        if state.logits.shape[1]:
            exit_entropy(state.logits.numpy()[0])
        ended = time.perf_counter()
        without_ms.append(1000 * (skipped - started))
        with_ms.append(1000 * (ended - skipped))
    return without_ms, with_ms


@torch.inference_mode()
def exit_logits(network: ProgressiveNetwork, images: Tensor) -> NDArray[np.float32]:
    """What every exit says of every image where none is skipped, (n, exits, K)."""
    found = [torch.stack(network(chunk), dim=1) for chunk in images.split(CHUNK)]
    return torch.cat(found).numpy()


@torch.inference_mode()
def logits_with_skips(
    network: ProgressiveNetwork, images: Tensor, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """What exits say where some before them were skipped, which matters if they fuse.

    Args:
        network: Prepared for serving.
        images: uint8 (n, 3, H, W).
        seed: Of which exits run.

    Returns:
        What each exit says if it runs after those that ran before it, (n, exits, K), and which
        ran, (n, N).
    """
    rng = np.random.default_rng(seed)
    exits, ran = [], []
    for chunk in images.split(SKIPPING_CHUNK):
        (runs,) = some_exits(network.num_blocks, 1, rng)
        runs &= np.isin(np.arange(1, network.num_blocks + 1), network.exits)
        state, said = network.start(chunk), []
        for block in range(1, network.num_blocks + 1):
            after = network.advance(state, block)
            if block in network.exits:
                said.append(after.logits)
            if block < network.num_blocks:
                state = after if runs[block - 1] else network.skip_exit(state, block)
        exits.append(torch.stack(said, dim=1))
        ran.append(np.tile(runs, (len(chunk), 1)))
    return torch.cat(exits).numpy(), np.concatenate(ran)
