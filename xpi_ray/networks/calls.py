"""What a forward may call, and the name that ``networks.operations`` has for it.

x.view(n, -1), torch.flatten(x, 1), x + y, F.relu(x) ─► "view", "flatten", "add", "relu"
"""

import operator
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from xpi_ray.networks.lifting import LIFTED
from xpi_ray.networks.operations import FUNCTIONS

SYNONYMS = {
    **{"iadd": "add", "radd": "add", "isub": "sub", "subtract": "sub", "imul": "mul"},
    **{"rmul": "mul", "multiply": "mul", "truediv": "div", "itruediv": "div", "divide": "div"},
    **{"bmm": "matmul", "concat": "cat", "swapaxes": "transpose"},
}
IDENTITIES = ("contiguous", "clone", "detach", "float", "to", "dropout", "dropout2d")
"""What may do nothing to values at inference."""
RESHAPING = ("view", "view_as", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze")
EXPANDING = ("expand", "expand_as")
PERMUTING = ("permute", "transpose")
SPLITTING = ("chunk", "split")
REWRITTEN = (*IDENTITIES, *RESHAPING, *EXPANDING, *PERMUTING, *SPLITTING, *LIFTED, "getitem")
"""What becomes other operations, by what it does to sizes."""
KNOWN = {*FUNCTIONS, *REWRITTEN}
NO_EFFECT = ("inplace", "_stacklevel")
"""Arguments that change no value."""

_NAMES: Mapping[object, str] = {
    getattr(place, name): SYNONYMS.get(name, name)
    for place in (torch, F, operator)
    for name in (*KNOWN, *SYNONYMS)
    if hasattr(place, name)
}
_IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)


def name_of(target: object) -> str:
    """The name of a function, or of a method that is given by its own; empty where none is known.

    Args:
        target: As torch.fx has it.
    """
    if not isinstance(target, str):
        return _NAMES.get(target, "")
    name = SYNONYMS.get(target.strip("_"), target.strip("_"))
    return name if name in KNOWN else ""


def changes_in_place(target: object, kwargs: Mapping[str, object]) -> bool:
    """Whether a function or a method changes its first tensor."""
    if isinstance(target, str):
        return target.endswith("_") and not target.startswith("_")
    return target in _IN_PLACE or bool(kwargs.get("inplace"))


def run(target: object, args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
    """Call a function, or a method of the first of ``args``."""
    function = getattr(Tensor, target) if isinstance(target, str) else target
    assert callable(function)
    return function(*args, **kwargs)
