"""What a traced network may be made of: layers of torch.nn, and pure functions of tensors.

    name ─► LAYERS or FUNCTIONS ─► what runs, and the settings that it takes

A spec names them and sets numbers; nothing else of what it says can run.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from pydantic import FiniteFloat
from torch import Tensor, nn
from torch.nn import functional as F

Setting = bool | int | FiniteFloat | str | None | tuple[int | FiniteFloat | None, ...]


class Held(nn.Module):
    """A tensor that is used as it is, such as a scale that was learnt, or a mean.

    Args:
        shape: Of the tensor.
        learns: Whether it is a parameter.
    """

    value: Tensor

    def __init__(self, shape: tuple[int, ...], learns: bool) -> None:
        super().__init__()
        self.shape, self.learns = shape, learns
        value = torch.zeros(shape)
        if learns:
            self.value = nn.Parameter(value)
        else:
            self.register_buffer("value", value)

    def forward(self) -> Tensor:
        """Return the tensor."""
        return self.value


LAYERS: Mapping[str, type[nn.Module]] = {
    layer.__name__: layer
    for layer in (
        nn.Conv2d,
        nn.Linear,
        nn.BatchNorm2d,
        nn.GroupNorm,
        nn.LayerNorm,
        nn.InstanceNorm2d,
        nn.LocalResponseNorm,
        nn.PReLU,
        nn.ReLU,
        nn.ReLU6,
        nn.LeakyReLU,
        nn.ELU,
        nn.SiLU,
        nn.GELU,
        nn.Mish,
        nn.Sigmoid,
        nn.Tanh,
        nn.Hardswish,
        nn.Hardsigmoid,
        nn.Softmax,
        nn.LogSoftmax,
        nn.MaxPool2d,
        nn.AvgPool2d,
        nn.AdaptiveAvgPool2d,
        nn.AdaptiveMaxPool2d,
        nn.ZeroPad2d,
        nn.ReflectionPad2d,
        nn.ReplicationPad2d,
        nn.Upsample,
        nn.Dropout,
        nn.Dropout2d,
        nn.Flatten,
        Held,
    )
}
_NO_SETTINGS = {"device", "dtype", "inplace", "return_indices"}  # of a constructor's arguments


def layer_settings(layer: nn.Module) -> dict[str, Setting]:
    """The arguments with which the constructor makes such a layer.

    Args:
        layer: One whose class is of ``LAYERS``.
    """
    found = {}
    for name in _constructor_settings(type(layer)):
        value = getattr(layer, name, None)
        found[name] = value is not None if name == "bias" else plain(value)
    return found


def setting_names(operation: str) -> tuple[str, ...]:
    """The settings that a layer or a function takes."""
    if operation in LAYERS:
        return _constructor_settings(LAYERS[operation])
    return FUNCTIONS[operation].settings


def plain(value: object) -> Setting:
    """A setting as a spec holds it: lists and sizes become tuples."""
    return tuple(value) if isinstance(value, list | tuple) else value  # type: ignore[return-value]


def _constructor_settings(layer: type[nn.Module]) -> tuple[str, ...]:
    return tuple(
        name
        for name, parameter in inspect.signature(layer).parameters.items()
        if name not in _NO_SETTINGS and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    )


class Function(NamedTuple):
    """A pure function: first tensors (n, ...), then settings."""

    run: Callable[..., Tensor]
    settings: tuple[str, ...] = ()
    """In the order in which they may be given without their names."""
    tensors: tuple[int, int] = (1, 1)
    """The least number of tensors that it takes, and the most."""


def _joined(*parts: Tensor, dim: int = 0) -> Tensor:
    return torch.cat(parts, dim)


def _sliced(x: Tensor, bounds: tuple[int, ...]) -> Tensor:
    """Start, stop and step of every dimension but the first."""
    steps = zip(bounds[::3], bounds[1::3], bounds[2::3], strict=True)
    return x[(slice(None), *(slice(*each) for each in steps))]


def _reshaped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """To a shape whose first dimension stays as it is."""
    return x.reshape(len(x), *shape)


def _expanded(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x.expand(len(x), *shape)


_BINARY = (1, 2)  # the second one may be a number in its place, the setting "other"
MOST_JOINED = 1024

FUNCTIONS: Mapping[str, Function] = {
    "add": Function(torch.add, ("other", "alpha"), _BINARY),
    "sub": Function(torch.sub, ("other", "alpha"), _BINARY),
    "rsub": Function(torch.rsub, ("other", "alpha"), _BINARY),
    "mul": Function(torch.mul, ("other",), _BINARY),
    "div": Function(torch.div, ("other",), _BINARY),
    "maximum": Function(torch.maximum, (), (2, 2)),
    "minimum": Function(torch.minimum, (), (2, 2)),
    "matmul": Function(torch.matmul, (), (2, 2)),
    "neg": Function(torch.neg),
    "abs": Function(torch.abs),
    "exp": Function(torch.exp),
    "sqrt": Function(torch.sqrt),
    "rsqrt": Function(torch.rsqrt),
    "reciprocal": Function(torch.reciprocal),
    "pow": Function(torch.pow, ("exponent",)),
    "clamp": Function(torch.clamp, ("min", "max")),
    "relu": Function(F.relu),
    "relu6": Function(F.relu6),
    "leaky_relu": Function(F.leaky_relu, ("negative_slope",)),
    "elu": Function(F.elu, ("alpha",)),
    "silu": Function(F.silu),
    "gelu": Function(F.gelu, ("approximate",)),
    "mish": Function(F.mish),
    "sigmoid": Function(torch.sigmoid),
    "tanh": Function(torch.tanh),
    "softplus": Function(F.softplus, ("beta", "threshold")),
    "hardswish": Function(F.hardswish),
    "hardsigmoid": Function(F.hardsigmoid),
    "hardtanh": Function(F.hardtanh, ("min_val", "max_val")),
    "softmax": Function(torch.softmax, ("dim",)),
    "log_softmax": Function(torch.log_softmax, ("dim",)),
    "mean": Function(torch.mean, ("dim", "keepdim")),
    "sum": Function(torch.sum, ("dim", "keepdim")),
    "amax": Function(torch.amax, ("dim", "keepdim")),
    "avg_pool2d": Function(
        F.avg_pool2d,
        ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    ),
    "max_pool2d": Function(
        F.max_pool2d, ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    ),
    "adaptive_avg_pool2d": Function(F.adaptive_avg_pool2d, ("output_size",)),
    "adaptive_max_pool2d": Function(F.adaptive_max_pool2d, ("output_size",)),
    "interpolate": Function(
        F.interpolate,
        ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias"),
    ),
    "pad": Function(F.pad, ("pad", "mode", "value")),
    "local_response_norm": Function(F.local_response_norm, ("size", "alpha", "beta", "k")),
    "cat": Function(_joined, ("dim",), (1, MOST_JOINED)),
    "permute": Function(torch.permute, ("dims",)),
    "slice": Function(_sliced, ("bounds",)),
    "reshape": Function(_reshaped, ("shape",)),
    "expand": Function(_expanded, ("shape",)),
}
