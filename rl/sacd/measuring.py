"""Measures a trained AlexNet: layer times, sizes of what crosses the link, accuracies.

AlexNet, Splits.validation ─► measure ─► Costs

Values are compressed as in the paper: one range for each image's tensor (equation 4), then
Huffman's code. Nothing is estimated: sizes and times are of coded images, accuracies of answers
computed from decoded values.
"""

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from rl.sacd.alexnet import EXITS, LAYERS, LEAVES_TRUNK, AlexNet, run
from rl.sacd.costs import BITS, Cost, Costs
from rl.sacd.training import EVALUATED, accuracies
from xpi_ray.compression.codec import QuantizedCodec
from xpi_ray.compression.coders import HuffmanCoder
from xpi_ray.compression.quantizer import MinMaxQuantizer
from xpi_ray.training.data import Split

CODED = 100  # images whose values are coded
ROUNDS = 200  # of timing each layer, for one image

_Result = TypeVar("_Result")
_Given = ParamSpec("_Given")


class _Coded(NamedTuple):
    """Of one tensor, over images."""

    encode_ms: float
    decode_ms: float
    exact_bytes: float
    payload_bytes: float


@torch.inference_mode()
def measure(network: AlexNet, split: Split, tell: Callable[[str], None] = lambda _: None) -> Costs:
    """Measure every exit, partition and bits of a folded network on held-out images."""
    exact, times = accuracies(network, split), layer_ms(network, split.images[:1])
    rows = []
    for exit_, layers, accuracy, spent in zip(EXITS, LAYERS, exact, times, strict=True):
        rows.append(Cost(exit_, layers, 0, sum(spent), 0.0, 0.0, 0.0, 0.0, 0.0, accuracy))
    for prefix, first, partition in _points(network):
        coded = _coded(run(prefix, network.normalise(split.images[:CODED])))
        for bits in BITS:
            found = crossing_accuracies(network, split, first, partition, bits)
            for exit_, accuracy in found.items():
                spent = times[exit_ - 1]
                before, after = sum(spent[:partition]), sum(spent[partition:])
                found_there = before, after, *coded[bits], accuracy
                rows.append(Cost(exit_, partition, bits, *found_there))
        tell(f"exit {first}, partition {partition}: {coded[BITS[0]].payload_bytes:.0f} bytes")
    return Costs(tuple(sorted(rows)))


@torch.inference_mode()
def crossing_accuracies(
    network: AlexNet, split: Split, exit_: int, partition: int, bits: int
) -> dict[int, float]:
    """Share of right answers when values cross the link after a layer on the way to an exit.

    Returns:
        By exit: of all that can still be reached from there.
    """
    quantizer = MinMaxQuantizer(bits, per_channel=True)  # the first axis is that of images
    path = network.path(exit_)
    right = {exit_: 0}
    for images, labels in zip(
        split.images.split(EVALUATED), split.labels.split(EVALUATED), strict=True
    ):
        values = run(path[:partition], network.normalise(images))
        arrived = torch.from_numpy(quantizer.dequantize(quantizer.quantize(values.numpy())))
        if arrived.dim() == 4:
            arrived = arrived.contiguous(memory_format=torch.channels_last)
        for reached, logits in _resume(network, arrived, exit_, partition).items():
            hits = int((logits.argmax(1) == labels).sum())
            right[reached] = right.get(reached, 0) + hits
    return {reached: hits / len(split.labels) for reached, hits in sorted(right.items())}


@torch.inference_mode()
def layer_ms(network: AlexNet, image: Tensor, rounds: int = ROUNDS) -> list[list[float]]:
    """Median time of every layer to each exit, for one image."""
    found = []
    for exit_ in EXITS:
        spent: list[list[float]] = [[] for _ in network.path(exit_)]
        for _ in range(rounds):
            values = network.normalise(image)
            for layer, own in zip(network.path(exit_), spent, strict=True):
                start = time.perf_counter()
                values = layer(values)
                own.append(1000 * (time.perf_counter() - start))
        found.append([median(own) for own in spent])
    return found


def _points(network: AlexNet) -> Iterator[tuple[list[nn.Module], int, int]]:
    """Every place to cross: layers before it, an exit that they lead to, their number.

    A place in the trunk is named after the last exit, so the trunk is looked at once.
    """
    for exit_, first in zip(EXITS, (*(leaves + 1 for leaves in LEAVES_TRUNK), 0), strict=True):
        path = network.path(exit_)
        for partition in range(first, len(path)):
            yield path[:partition], exit_, partition


def _resume(network: AlexNet, values: Tensor, exit_: int, partition: int) -> dict[int, Tensor]:
    """Logits by exit."""
    if exit_ < EXITS[-1]:
        return {exit_: run(network.path(exit_)[partition:], values)}
    logits = network.resume(values, partition)
    return dict(zip(EXITS[-len(logits) :], logits, strict=True))


def _coded(values: Tensor) -> dict[int, _Coded]:
    """Code every image's values, by bits."""
    each = [np.ascontiguousarray(one) for one in values.contiguous().numpy()]
    shape = (*each[0].shape, 1, 1)[:3]
    found = {}
    for bits in BITS:
        codec = QuantizedCodec(MinMaxQuantizer(bits), HuffmanCoder())
        encoded = [_timed(codec.encode, one) for one in each]
        decoded = [_timed(codec.decode, payload, shape) for payload, _ in encoded]
        found[bits] = _Coded(
            median(ms for _, ms in encoded),
            median(ms for _, ms in decoded),
            float(each[0].nbytes),
            float(np.mean([len(payload) for payload, _ in encoded])),
        )
    return found


def _timed(
    call: Callable[_Given, _Result], *given: _Given.args, **named: _Given.kwargs
) -> tuple[_Result, float]:
    """A result and the milliseconds that it took."""
    start = time.perf_counter()
    result = call(*given, **named)
    return result, 1000 * (time.perf_counter() - start)
