"""From a request's bytes to a call, and from its answers to the bytes of a reply.

    headers, query, body ─► parse_… ─► InferCall, ClassifyCall ─► router
                  HttpReply ◄─ render_… ◄─ Answer ◄────────────────┘

Pure: no socket, no clock but the one that times an image's decoding.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from xpi_ray.api.deadline import Deadline, read_deadline
from xpi_ray.api.forms import MAX_FORM_BYTES, is_form, read_form, read_query
from xpi_ray.api.schema import (
    MAX_BATCH,
    ClassifyAnswer,
    ExitScore,
    ModelFacts,
    ServerMetadata,
    StreamEnd,
    StreamExit,
    model_metadata,
    parse_infer_request,
)
from xpi_ray.api.stops import FIELDS, read_stops
from xpi_ray.api.tensors import (
    LENGTH_HEADER,
    OutputChoice,
    Pixels,
    choose_outputs,
    read_images,
    split,
    write_outputs,
)
from xpi_ray.compression.image import MAX_IMAGE_BYTES, decode_image
from xpi_ray.config import Frozen
from xpi_ray.elastic.stop_times import StopTimes
from xpi_ray.errors import NotFoundError, RequestError, TooLargeError, UnsupportedMediaError
from xpi_ray.inference.answer import STAGES, Answer, ExitAnswer, Logits, Status
from xpi_ray.inference.elastic import ElasticEnd, ElasticExit

JSON_BYTES_PER_PIXEL = 8  # three digits, a comma, and indentation
MAX_JSON_BYTES = 2**16  # all of an infer request's JSON but its data


CLASSIFY_FIELDS = ("deadline_ms", "exits")
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


class HttpReply(NamedTuple):
    """All of a reply; the transport only sends it."""

    status: int
    headers: dict[str, str]
    body: bytes


class InferCall(NamedTuple):
    """A parsed infer request."""

    images: Pixels
    """uint8 (n, 3, H, W)."""
    deadline: Deadline
    id: str | None
    outputs: tuple[OutputChoice, ...]


class ClassifyCall(NamedTuple):
    """A parsed classify request."""

    image: Pixels
    """uint8 (3, H, W)."""
    file: bytes
    """What they were made of."""
    deadline: Deadline
    wants_exits: bool
    decode_image_ms: float
    """For the answer's stages."""


class StreamCall(NamedTuple):
    """A parsed request for exits as they come."""

    image: Pixels
    """uint8 (3, H, W)."""
    stops: StopTimes | None
    """When it may be stopped; None if the caller does not say."""


class Handlers:
    """The interface of one served model.

    Header names are in lower case throughout.

    Args:
        facts: What is served.
        default_deadline_ms: For requests that carry none.
        maximum_deadline_ms: What longer ones are cut to.
    """

    def __init__(
        self, facts: ModelFacts, default_deadline_ms: float, maximum_deadline_ms: float
    ) -> None:
        self.facts = facts
        self._default_ms = default_deadline_ms
        self._maximum_ms = maximum_deadline_ms
        self._metadata = model_metadata(facts)
        self._outputs = tuple(tensor.name for tensor in self._metadata.outputs)
        pixels = MAX_BATCH * math.prod(facts.image_shape)
        self.max_infer_bytes = MAX_JSON_BYTES + JSON_BYTES_PER_PIXEL * pixels
        self.max_classify_bytes = MAX_FORM_BYTES + MAX_IMAGE_BYTES

    def live(self) -> HttpReply:
        """``GET /v2/health/live``."""
        return _json_reply({"live": True})

    def ready(self, is_ready: bool) -> HttpReply:
        """``GET /v2/health/ready``: 200 or 503."""
        return _json_reply({"ready": is_ready, "live": True}, 200 if is_ready else 503)

    def server_metadata(self) -> HttpReply:
        """``GET /v2``."""
        return _json_reply(ServerMetadata().model_dump())

    def model_metadata(self, model: str, version: str | None = None) -> HttpReply:
        """``GET /v2/models/{model}[/versions/{version}]``.

        Raises:
            NotFoundError: Another model or version is served.
        """
        self._check_served(model, version)
        return _json_reply(self._metadata.model_dump())

    def model_ready(self, model: str, version: str | None, is_ready: bool) -> HttpReply:
        """``GET /v2/models/{model}[/versions/{version}]/ready``: 200 or 503.

        Raises:
            NotFoundError: Another model or version is served.
        """
        self._check_served(model, version)
        return _json_reply({"name": model, "ready": is_ready}, 200 if is_ready else 503)

    def parse_infer(
        self, model: str, version: str | None, headers: Mapping[str, str], body: bytes
    ) -> InferCall:
        """``POST /v2/models/{model}[/versions/{version}]/infer``; the Content-Type is not read.

        Raises:
            RequestError: Or one below it, for whatever cannot be answered as it was sent.
        """
        self._check_served(model, version)
        _check_body(headers, body, self.max_infer_bytes)
        text, binary = split(headers, body)
        request = parse_infer_request(text)
        images = read_images(request, binary, self.facts.image_shape)
        deadline = self._read_deadline(headers, request.parameters or {})
        return InferCall(images, deadline, request.id, choose_outputs(request, self._outputs))

    def render_infer(self, call: InferCall, answers: Sequence[Answer]) -> HttpReply:
        """Answer an infer request, one answer for each of its images, in order."""
        best = [answer.best for answer in answers]
        logits = np.stack([exit_.logits for exit_ in best])
        entries, binary = write_outputs(
            call.outputs,
            {
                "logits": logits,
                "label": [self.facts.labels[index] for index in logits.argmax(axis=1)],
                "exit": np.array([exit_.exit for exit_ in best], np.int32),
                "tier": [exit_.tier for exit_ in best],
                "status": [answer.status for answer in answers],
            },
        )
        parameters = _shared_facts(call, answers)
        if len(answers) == 1:
            parameters |= _image_facts(answers[0])
        message: dict[str, object] = {
            "model_name": self.facts.name,
            "model_version": self.facts.version,
            **({} if call.id is None else {"id": call.id}),
            # The protocol has no null here, and JSON no number for what is not finite.
            "parameters": {f"xpi_{k}": v for k, v in parameters.items() if v is not None},
            "outputs": entries,
        }
        if not any(output.binary for output in call.outputs):
            return _json_reply(message)
        text = json.dumps(message, allow_nan=False).encode()
        headers = {"Content-Type": "application/octet-stream", LENGTH_HEADER: str(len(text))}
        return HttpReply(200, headers, text + binary)

    def parse_classify(self, headers: Mapping[str, str], query: str, body: bytes) -> ClassifyCall:
        """``POST /v1/classify``: the image as the body, whatever its type, or in a form.

        Args:
            headers: Names in lower case.
            query: The URL's part after ``?``; ``deadline_ms`` and ``exits`` may stand there.
            body: The image, or multipart/form-data with ``image`` and the two others.

        Raises:
            RequestError: Or one below it, for whatever cannot be answered as it was sent.
        """
        _check_body(headers, body, self.max_classify_bytes)
        content_type = headers.get("content-type", "")
        data, options = _read_options(content_type, query, body, CLASSIFY_FIELDS)
        wants_exits = _FLAGS.get(options.get("exits", "false"))
        if wants_exits is None:
            raise RequestError(f"exits must be true or false, got {options['exits'][:64]!r}")
        deadline = self._read_deadline(headers, options)
        image, decode_image_ms = self._decode(data)
        return ClassifyCall(image, data, deadline, wants_exits, decode_image_ms)

    def parse_stream(self, headers: Mapping[str, str], query: str, body: bytes) -> StreamCall:
        """``POST /v1/classify/stream``: the image as in ``parse_classify``.

        Args:
            headers: Names in lower case.
            query: ``stop_within_ms`` or ``stops_ms`` may stand there.
            body: The image, or a form with it and these.

        Raises:
            RequestError: Or one below it, for whatever cannot be answered as it was sent.
        """
        _check_body(headers, body, self.max_classify_bytes)
        data, options = _read_options(headers.get("content-type", ""), query, body, FIELDS)
        stops = read_stops(options)
        return StreamCall(self._decode(data)[0], stops)

    def _decode(self, data: bytes) -> tuple[Pixels, float]:
        """An image file's pixels, and what that took, in ms."""
        started_s = time.perf_counter()
        _, height, width = self.facts.image_shape
        image = decode_image(data, (height, width))
        return image, (time.perf_counter() - started_s) * 1000

    def render_part(self, part: ElasticExit | ElasticEnd) -> bytes:
        """One event of a stream, in the form of server-sent events (HTML, section 9.2)."""
        elapsed_ms = round(part.elapsed_ms, 3)
        if isinstance(part, ElasticEnd):
            status = "complete" if part.is_complete else "stopped"
            return _event(
                "end", StreamEnd(status=status, blocks=part.blocks, elapsed_ms=elapsed_ms)
            )
        score = self._score(part.answer)
        confidence = round(part.confidence, 4)
        return _event(
            "exit", StreamExit(**dict(score), confidence=confidence, elapsed_ms=elapsed_ms)
        )

    def render_classify(self, call: ClassifyCall, answer: Answer) -> HttpReply:
        """Answer a classify request."""
        exits = [self._score(exit_) for exit_ in (answer.exits if call.wants_exits else [])]
        best = self._score(answer.best)
        reply = ClassifyAnswer(
            model=self.facts.name,
            label=best.label,
            score=best.score,
            exit=best.exit,
            tier=best.tier,
            status=answer.status,
            entropy=best.entropy,
            partition=answer.partition,
            level=answer.level,
            plan_version=answer.plan_version,
            frame_bytes=answer.frame_bytes,
            deadline_ms=round(call.deadline.ms, 3),
            deadline_source=call.deadline.source,
            budget_left_ms=round(answer.budget_left_ms, 3),
            stages={name: round(getattr(answer.stages, name), 3) for name in STAGES},
            exits=exits if call.wants_exits else None,
        )
        body = reply.model_dump_json(exclude_none=True).encode()
        return HttpReply(200, {"Content-Type": "application/json"}, body)

    def _score(self, answer: ExitAnswer) -> ExitScore:
        index, score = _winner(answer.logits)
        return ExitScore(
            exit=answer.exit,
            tier=answer.tier,
            label=self.facts.labels[index],
            score=round(score, 4),
            entropy=round(float(answer.entropy), 4),
        )

    def _read_deadline(self, headers: Mapping[str, str], body: Mapping[str, object]) -> Deadline:
        return read_deadline(headers, body, self._default_ms, self._maximum_ms)

    def _check_served(self, model: str, version: str | None) -> None:
        if model != self.facts.name:
            raise NotFoundError(f"expected the model {self.facts.name!r}, got {model[:64]!r}")
        if version is not None and version != self.facts.version:
            raise NotFoundError(f"expected version {self.facts.version!r}, got {version[:64]!r}")


def _json_reply(message: Mapping[str, object], status: int = 200) -> HttpReply:
    body = json.dumps(message, allow_nan=False).encode()
    return HttpReply(status, {"Content-Type": "application/json"}, body)


def _check_body(headers: Mapping[str, str], body: bytes, limit_bytes: int) -> None:
    encoding = headers.get("content-encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        raise UnsupportedMediaError(f"send the body uncompressed, got {encoding[:64]!r}")
    if len(body) > limit_bytes:
        raise TooLargeError(f"the body must be at most {limit_bytes} bytes, got {len(body)}")


def _event(kind: str, message: Frozen) -> bytes:
    return f"event: {kind}\ndata: {message.model_dump_json()}\n\n".encode()


def _read_options(
    content_type: str, query: str, body: bytes, allowed: Sequence[str]
) -> tuple[bytes, dict[str, str]]:
    """The image file, and the fields beside it in the query or the form."""
    options = read_query(query)
    if is_form(content_type):
        form = read_form(content_type, body)
        if "image" not in form:
            raise RequestError(f"expected the form to have a field 'image', got {list(form)}")
        body = form.pop("image")
        if twice := options.keys() & form:
            raise RequestError(f"{min(twice)[:64]!r} stands in the form and in the query")
        options |= {name: value.decode("utf-8", "replace") for name, value in form.items()}
    if unknown := options.keys() - set(allowed):
        raise RequestError(
            f"expected no fields but {' and '.join(allowed)} beside the image, "
            f"got {min(unknown)[:64]!r}"
        )
    return body, options


def _shared_facts(call: InferCall, answers: Sequence[Answer]) -> dict[str, object]:
    """What holds for a whole request: the worst of its images."""
    complete = all(answer.status is Status.COMPLETE for answer in answers)
    return {
        "status": Status.COMPLETE if complete else Status.BEST_EFFORT,
        "plan_version": answers[0].plan_version,
        "deadline_ms": _rounded(call.deadline.ms, 3),
        "deadline_source": call.deadline.source,
        "budget_left_ms": _rounded(min(answer.budget_left_ms for answer in answers), 3),
    }


def _image_facts(answer: Answer) -> dict[str, object]:
    return {
        "exit": answer.best.exit,
        "tier": answer.best.tier,
        "entropy": _rounded(answer.best.entropy, 4),
        "partition": answer.partition,
        "level": answer.level,
        "frame_bytes": answer.frame_bytes,
        **{name: _rounded(getattr(answer.stages, name), 3) for name in STAGES},
    }


def _rounded(value: float, digits: int) -> float | None:
    return round(float(value), digits) if math.isfinite(value) else None


def _winner(logits: Logits) -> tuple[int, float]:
    """Index of the greatest logit, and its softmax probability."""
    index = int(logits.argmax())
    return index, float(1 / np.exp(logits.astype(np.float64) - logits[index]).sum())
