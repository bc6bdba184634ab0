"""Callables of the user's that make networks, named as package.module:name."""

import importlib
from collections.abc import Callable

from torch import nn

from xpi_ray.errors import TrainingError


def own_callable(name: str, role: str, arguments: str) -> Callable[..., nn.Module]:
    """Import the callable of that name.

    Args:
        name: "package.module:name".
        role: Of the network that it makes, for messages.
        arguments: That it takes, likewise.

    Raises:
        TrainingError: There is no such module, or no callable of that name in it.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, TypeError, ValueError) as error:  # the last two: not a module's name
        raise TrainingError(f"cannot import the {role} {name!r}: {error}") from error
    found = getattr(module, attribute, None)
    if not callable(found):
        raise TrainingError(
            f"{module_name} holds no callable {attribute!r}; a {role} of your own is given as "
            f"package.module:name of {arguments} -> torch.nn.Module"
        )
    return found  # type: ignore[no-any-return]
