"""From a function of weights, such as ``F.conv2d``, to the layer that does the same.

    F.conv2d(images, self.weight, stride=2) ─► nn.Conv2d with a copy of that weight

Layers that change torch's forward call such functions: convolutions that pad as TensorFlow does,
or that standardise their weights first.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

LIFTED: Mapping[str, tuple[str, ...]] = {
    "conv2d": ("weight", "bias", "stride", "padding", "dilation", "groups"),
    "linear": ("weight", "bias"),
    "batch_norm": ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    "group_norm": ("num_groups", "weight", "bias", "eps"),
    "layer_norm": ("normalized_shape", "weight", "bias", "eps"),
}
"""The functions, and the names of their arguments after the first."""
WEIGHTS = ("weight", "bias", "running_mean", "running_var")


def lifted(name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> nn.Module | None:
    """The layer that does what a function does to images, in eval mode.

    Args:
        name: One of ``LIFTED``.
        args: Of the function, without the first.
        kwargs: Likewise.

    Returns:
        None where weights are not known, or statistics would be those of the batch.
    """
    given = dict(zip(LIFTED[name], args, strict=False)) | dict(kwargs)
    weights = {key: given.pop(key, None) for key in WEIGHTS}
    if any(value is not None and not isinstance(value, Tensor) for value in weights.values()):
        return None
    if name == "batch_norm" and (given.pop("training", False) or weights["running_mean"] is None):
        return None
    layer = _BUILDERS[name](weights, given)
    state = {key: value for key, value in weights.items() if value is not None}
    layer.load_state_dict(state, strict=False)  # a norm's counter is not among them
    return layer.eval()


def _conv2d(weights: Mapping[str, Any], given: dict[str, Any]) -> nn.Module:
    made, read, height, width = weights["weight"].shape
    read *= given.get("groups", 1)
    return nn.Conv2d(read, made, (height, width), bias=weights["bias"] is not None, **given)


def _linear(weights: Mapping[str, Any], given: dict[str, Any]) -> nn.Module:
    made, read = weights["weight"].shape
    return nn.Linear(read, made, bias=weights["bias"] is not None, **given)


def _batch_norm(weights: Mapping[str, Any], given: dict[str, Any]) -> nn.Module:
    channels = len(weights["running_mean"])
    return nn.BatchNorm2d(channels, affine=weights["weight"] is not None, **given)


def _group_norm(weights: Mapping[str, Any], given: dict[str, Any]) -> nn.Module:
    weight = weights["weight"]
    channels = len(weight) if weight is not None else given["num_groups"]
    return nn.GroupNorm(num_channels=channels, affine=weight is not None, **given)


def _layer_norm(weights: Mapping[str, Any], given: dict[str, Any]) -> nn.Module:
    affine = weights["weight"] is not None
    return nn.LayerNorm(elementwise_affine=affine, bias=weights["bias"] is not None, **given)


_BUILDERS: Mapping[str, Callable[[Mapping[str, Any], dict[str, Any]], nn.Module]] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
}
