"""From a method and a path to the function that serves them.

POST /v2/models/cifar10/infer ─► Routes.find ─► (infer, {"model": "cifar10", "version": None})
"""

import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from xpi_ray.api.handlers import HttpReply
from xpi_ray.errors import NotFoundError, RequestError

Serve = Callable[..., Awaitable[HttpReply | Response]]
"""Called with the request and the path's parameters by name; a Response is a stream."""


class MethodNotAllowedError(RequestError):
    """The path is known, the method is not one that it takes."""

    status = 405


class _Route(NamedTuple):
    method: str
    path: re.Pattern[str]
    serve: Serve


class Routes:
    """A table of routes; ``{name}`` in a path stands for one segment."""

    def __init__(self, table: list[tuple[str, str, Serve]]) -> None:
        self._routes = [_Route(method, _pattern(path), serve) for method, path, serve in table]

    def find(self, request: Request) -> tuple[Serve, dict[str, str]]:
        """What serves the request, and its path's parameters.

        Raises:
            NotFoundError: No route has the path.
            MethodNotAllowedError: One has it, with other methods.
        """
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        allowed = []
        for route in self._routes:
            match = route.path.fullmatch(path)
            if match and route.method == request.method:
                return route.serve, match.groupdict()
            if match:
                allowed.append(route.method)
        if allowed:
            raise MethodNotAllowedError(f"{path} takes {', '.join(allowed)}, got {request.method}")
        raise NotFoundError(
            f"there is nothing at {path[:200]}; try POST /v1/classify, "
            "POST /v2/models/{model}/infer or GET /v2"
        )


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))
