"""Block times as the peers know them: regressions of each kind of layer's time on its shape.

    network ─► measure_layers ─► Layer… ─► Regressions ─► time of every block ─► LayerProfile

Neurosurgeon (ASPLOS'17) and Edgent (TWC 2020) measure layers and not the network that they serve:
for each kind of layer a regression predicts the time from the shape. By notes and memory, their
features are, for a convolution, the size of its input and (filter size / stride)² · filters; for
pooling and fully connected layers the sizes of input and output; for all others the size of the
input. Both fit by least squares; Neurosurgeon also takes logarithms, which Edgent does not.

Chosen: the product of a convolution's two features is a third one, which is its multiplications;
the papers' text that was at hand does not tell how else two summands could be a convolution's
time. A layer is an operation that the network calls, be it a module or not. The regressions are
fitted to the layers of the network that they are asked about, so they know more than the papers'
did. A block is the sum of its layers: what Python and caches take between them is in none, and
PORTEND (ICPADS'23) finds such sums further off than blocks timed whole.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from xpi_ray.networks.progressive import ProgressiveNetwork
from xpi_ray.profiles.table import Profile
from xpi_ray.profiles.threads import on_threads

Kind = Literal["convolution", "pooling", "dense", "elementwise"]
Array = NDArray[np.float64]

POOLING = frozenset({"mean", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "amax"})
VIEWS = frozenset(
    {"__getitem__", "__get__", "flatten", "view", "reshape", "contiguous", "chunk", "new_empty"}
)
"""What computes no value takes next to no time, and is no layer."""
NAME = "layers"
"""Of such a profile in a bundle."""
WARM_UPS = 5
DIGITS = 4  # of milliseconds


class Layer(NamedTuple):
    """One operation of a network, and what it took."""

    block: int
    """1..N."""
    kind: Kind
    features: tuple[float, ...]
    """As its kind has them; how many values go in, comes first."""
    ms: float
    """Median."""


class LayerProfile(NamedTuple):
    """What the regressions make of a network, and how far they are off."""

    profile: Profile
    """With predicted block times in place of measured ones."""
    layer_error: float
    """Mean difference between a layer's predicted and measured time, over its mean time."""
    block_error: float
    """Likewise of blocks, beside those that the profile has measured whole."""


class Regressions:
    """A linear regression for each kind of layer, by least squares.

    Args:
        layers: Measured ones, at least one of every kind that is asked about later.
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        by_kind: dict[Kind, list[Layer]] = {}
        for layer in layers:
            by_kind.setdefault(layer.kind, []).append(layer)
        self._weights = {kind: _fitted(found) for kind, found in by_kind.items()}

    def predict_ms(self, kind: Kind, features: Sequence[float]) -> float:
        """Time of a layer, at least 0.

        Raises:
            KeyError: No layer of this kind was measured.
        """
        return max(float(np.append(features, 1.0) @ self._weights[kind]), 0.0)


def layer_profile(
    network: ProgressiveNetwork, images: Tensor, measured: Profile, repeats: int = 50
) -> LayerProfile:
    """Predict a network's block times from its layers, on this machine.

    Args:
        network: Prepared for serving.
        images: Real ones or noise, uint8 (n, 3, H, W); used in turn.
        measured: Of this machine; what is not of blocks stays as it is there.
        repeats: Runs that layers' times are the medians of.
    """
    layers = measure_layers(network, images, repeats, measured.threads)
    regressions = Regressions(layers)
    predicted_ms = np.array([regressions.predict_ms(each.kind, each.features) for each in layers])
    layer_ms = np.array([layer.ms for layer in layers])
    blocks = np.array([layer.block for layer in layers]) - 1
    block_ms: Array = np.bincount(blocks, predicted_ms, network.num_blocks).astype(np.float64)
    profile = Profile(
        machine=f"{measured.machine}, predicted from layers",
        threads=measured.threads,
        slowdown=measured.slowdown,
        block_ms=tuple(block_ms.round(DIGITS).tolist()),
        encode_ms=measured.encode_ms,
        decode_ms=measured.decode_ms,
    )
    return LayerProfile(
        profile, _error(predicted_ms, layer_ms), _error(block_ms, np.array(measured.block_ms))
    )


def measure_layers(
    network: ProgressiveNetwork, images: Tensor, repeats: int = 50, threads: int = 1
) -> list[Layer]:
    """Time every layer for one image within whole runs, in order.

    Args:
        network: Prepared for serving.
        images: uint8 (n, 3, H, W); used in turn.
        repeats: Runs.
        threads: Threads that a layer runs on.
    """
    watch = _Watch()
    runs: list[list[float]] = []
    with on_threads(threads), torch.inference_mode():
        for run in range(WARM_UPS + repeats):
            state = network.start(images[run % len(images)].unsqueeze(0))
            watch.found, watch.times_ms = [], []
            with watch:
                for block in range(1, network.num_blocks + 1):
                    watch.block = block
                    state = network.advance(state, block)
            if run >= WARM_UPS:
                runs.append(watch.times_ms)
    median_ms = np.median(runs, 0).tolist()
    return [Layer(*found, ms) for found, ms in zip(watch.found, median_ms, strict=True)]


class _Watch(TorchFunctionMode):
    """Times each call of torch while it is entered; what a call calls is part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.block = 0
        self.found: list[tuple[int, Kind, tuple[float, ...]]] = []
        self.times_ms: list[float] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the call returns
        """Call, and note what was called if it is a layer."""
        del types
        kwargs = kwargs or {}
        started = time.perf_counter()
        result = func(*args, **kwargs)
        taken_ms = (time.perf_counter() - started) * 1000
        name = getattr(func, "__name__", "")
        if isinstance(result, Tensor) and name not in VIEWS:
            inputs = [*_tensors(args), *_tensors(kwargs.values())]
            if inputs:
                self.found.append((self.block, *_described(name, inputs, result)))
                self.times_ms.append(taken_ms)
        return result


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    found = []
    for value in values:
        parts = value if isinstance(value, list | tuple) else [value]
        found += [part for part in parts if isinstance(part, Tensor)]
    return found


def _described(
    name: str, inputs: Sequence[Tensor], output: Tensor
) -> tuple[Kind, tuple[float, ...]]:
    """A layer's kind and features."""
    first = inputs[0]
    size = float(first.numel())
    if name == "conv2d":
        kernels = inputs[1]  # (filters, channels of a group, height, width)
        area = kernels[0, 0].numel() * output[0, 0].numel() / first[0, 0].numel()
        work = area * kernels.shape[0] * kernels.shape[1] / first.shape[1]
        return "convolution", (size, work, size * work)
    if name == "linear":
        return "dense", (size, float(output.numel()))
    if name in POOLING:
        return "pooling", (size, float(output.numel()))
    return "elementwise", (float(sum(each.numel() for each in inputs)),)


def _fitted(layers: Sequence[Layer]) -> Array:
    """Weights of the features and, last, the constant."""
    features = np.array([(*layer.features, 1.0) for layer in layers])
    scale = np.abs(features).max(0)
    scale[scale == 0] = 1.0  # so that least squares weighs columns alike
    times_ms = np.array([layer.ms for layer in layers])
    weights: Array = np.linalg.lstsq(features / scale, times_ms)[0] / scale
    return weights


def _error(predicted_ms: Array, measured_ms: Array) -> float:
    return float(np.abs(predicted_ms - measured_ms).mean() / measured_ms.mean())
