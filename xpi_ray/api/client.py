"""A client of a running server, for the commands that send image files to one.

file ─► Client.classify ─► ClassifyAnswer
     └► Client.stream ─► StreamExit, …, StreamEnd
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import httpx
from pydantic import ValidationError

from xpi_ray.api.schema import ClassifyAnswer, StreamEnd, StreamExit
from xpi_ray.errors import RequestError, UnavailableError

TIMEOUT_S = 60.0  # far above any deadline: a first request may wait for a server that starts
EVENTS: Mapping[str, type[StreamExit | StreamEnd]] = {"exit": StreamExit, "end": StreamEnd}


class Client:
    """Talks to one server.

    Args:
        server: Its address, such as ``http://127.0.0.1:8000``.
        http: What requests go by.

    Raises:
        RequestError: By each method: the file cannot be read, or the server refused it.
        UnavailableError: By each method: nothing answers there.
    """

    def __init__(self, server: str, http: httpx.Client) -> None:
        self._server, self._http = server, http

    @classmethod
    @contextmanager
    def of(cls, server: str) -> Iterator[Self]:
        """A client of a server, with connections that are kept while the context lasts."""
        with httpx.Client(timeout=TIMEOUT_S) as http:
            yield cls(server, http)

    def classify(self, file: Path, deadline_ms: float | None, exits: bool) -> ClassifyAnswer:
        """What the server says of an image file.

        Args:
            file: PNG, JPEG or WebP.
            deadline_ms: Time that the server may take; None: its default.
            exits: Whether the answer is to have every exit's.
        """
        options = {"exits": "true"} if exits else {}
        if deadline_ms is not None:
            options["deadline_ms"] = str(deadline_ms)
        with self._posted(file, "/v1/classify", options) as reply:
            return ClassifyAnswer.model_validate_json(reply.read())

    def stream(self, file: Path, stop_within_ms: float | None) -> Iterator[StreamExit | StreamEnd]:
        """What exits say as they run, and the end; leaving the iterator stops the compute.

        Args:
            file: PNG, JPEG or WebP.
            stop_within_ms: The answer may be needed at any time up to this; None: up to what the
                whole network takes.
        """
        options = {} if stop_within_ms is None else {"stop_within_ms": str(stop_within_ms)}
        with self._posted(file, "/v1/classify/stream", options) as reply:
            kind = ""
            for line in reply.iter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    kind = value
                elif field == "data" and kind in EVENTS:
                    part = EVENTS[kind].model_validate_json(value)
                    yield part
                    if isinstance(part, StreamEnd):
                        return
        raise RequestError(f"{self._server} broke the stream off, or is no xpi server")

    @contextmanager
    def _posted(
        self, file: Path, path: str, options: Mapping[str, str]
    ) -> Iterator[httpx.Response]:
        """The reply that is no refusal, not read yet."""
        url = f"{self._server.rstrip('/')}{path}"
        try:
            image = file.read_bytes()
        except OSError as err:
            raise RequestError(f"cannot read the file: {err.strerror}") from err
        try:
            with self._http.stream("POST", url, params=options, content=image) as reply:
                if not reply.is_success:
                    reply.read()
                    raise RequestError(_refusal(reply))
                yield reply
        except ValidationError:
            raise RequestError(f"{self._server} answers, but not as an xpi server does") from None
        except (httpx.HTTPError, httpx.InvalidURL) as err:
            raise UnavailableError(
                f"no server answers at {self._server} ({err}); start one with `make serve` or "
                "`xpi serve`"
            ) from err


def _refusal(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {reply.status_code} {reply.reason_phrase}"
