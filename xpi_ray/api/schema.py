"""The messages of the interface, with their bounds.

    JSON ─► InferRequest ─► tensors          Answer ─► ClassifyAnswer ─► JSON

The Open Inference Protocol's REST form (KServe V2), and the short answer of ``/v1/classify``.
Unknown members are ignored, as other servers of the protocol do: clients send extensions.
"""

import json
import math
import reprlib
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xpi_ray import __version__
from xpi_ray.config import Frozen
from xpi_ray.errors import RequestError

MAX_BATCH = 32  # images in one request
MAX_ID_LENGTH = 1024
MAX_NAME_LENGTH = 256
MAX_ITEMS = 64  # parameters, inputs and outputs, dimensions: far above what any request needs

EXTENSIONS = ("binary_tensor_data",)

Name = Annotated[str, Field(max_length=MAX_NAME_LENGTH)]
Scalar = str | int | float | bool
Parameters = Annotated[dict[Name, Scalar], Field(max_length=MAX_ITEMS)]


class ModelFacts(Frozen):
    """What the interface needs to know of the model that is served."""

    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    labels: tuple[str, ...] = Field(min_length=1)
    """Class names in the order of the logits, K of them."""
    image_shape: tuple[int, int, int]
    """(3, H, W)."""
    num_blocks: int = Field(ge=1)


class Message(BaseModel):
    """What a client sends: immutable, and typed as strictly as JSON is."""

    model_config = ConfigDict(frozen=True, strict=True)


class InputTensor(Message):
    """One tensor of a request, its data in JSON or in the binary part of the body."""

    name: Name
    datatype: Name
    shape: list[int] = Field(max_length=MAX_ITEMS)
    parameters: Parameters | None = None
    data: list[object] | None = None
    """Row-major, nested or flat."""


class RequestedOutput(Message):
    """One tensor that the client wants back."""

    name: Name
    parameters: Parameters | None = None


class InferRequest(Message):
    """The body of ``POST /v2/models/{model}/infer``."""

    id: str | None = Field(default=None, max_length=MAX_ID_LENGTH)
    parameters: Parameters | None = None
    inputs: list[InputTensor] = Field(max_length=MAX_ITEMS)
    outputs: list[RequestedOutput] | None = Field(default=None, max_length=MAX_ITEMS)


class TensorMetadata(Frozen):
    """A tensor that the model takes or gives; -1 stands for any number of images."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ServerMetadata(Frozen):
    """The body of ``GET /v2``."""

    name: str = "xpi_ray"
    version: str = __version__
    extensions: tuple[str, ...] = EXTENSIONS


class ModelMetadata(Frozen):
    """The body of ``GET /v2/models/{model}``."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class ExitScore(Frozen):
    """What one exit says."""

    exit: int
    tier: str
    label: str
    score: float
    entropy: float


class StreamExit(ExitScore):
    """An exit that ran, of a request that may be stopped at any time."""

    confidence: float
    """The chance that it is right, 0..1, calibrated on held-out images."""
    elapsed_ms: float
    """Since the request came."""


class StreamEnd(Frozen):
    """The end of such a request."""

    status: str
    """``complete``: nothing ahead was worth its time; ``stopped``: the edge was pre-empted."""
    blocks: int
    """How many ran."""
    elapsed_ms: float


class ClassifyAnswer(Frozen):
    """The body that answers ``POST /v1/classify``."""

    model: str
    label: str
    score: float
    """Softmax probability of the label, 0..1."""
    exit: int
    tier: str
    status: str
    entropy: float
    partition: int
    level: int
    plan_version: int
    frame_bytes: int
    deadline_ms: float
    deadline_source: str
    budget_left_ms: float
    stages: dict[str, float]
    """Milliseconds per stage."""
    exits: list[ExitScore] | None = None
    """Every exit that ran, when asked for."""


def model_metadata(facts: ModelFacts) -> ModelMetadata:
    """Describe the one input, pixels 0..255, and the outputs."""
    return ModelMetadata(
        name=facts.name,
        versions=(facts.version,),
        platform="xpi_ray_progressive",
        inputs=(TensorMetadata(name="image", datatype="UINT8", shape=(-1, *facts.image_shape)),),
        outputs=(
            TensorMetadata(name="logits", datatype="FP32", shape=(-1, len(facts.labels))),
            TensorMetadata(name="label", datatype="BYTES", shape=(-1,)),
            TensorMetadata(name="exit", datatype="INT32", shape=(-1,)),
            TensorMetadata(name="tier", datatype="BYTES", shape=(-1,)),
            TensorMetadata(name="status", datatype="BYTES", shape=(-1,)),
        ),
    )


def parse_infer_request(body: bytes | memoryview) -> InferRequest:
    """Read the JSON part of an infer request.

    Raises:
        RequestError: It is not strict JSON in UTF-8, or not the protocol's message.
    """
    try:
        return InferRequest.model_validate(_DECODER.decode(str(body, "utf-8")))
    except ValidationError as err:
        raise RequestError(_first_fault(err)) from None
    except RecursionError:
        raise RequestError("expected a JSON object, got one nested too deeply") from None
    except ValueError as err:  # not UTF-8, not JSON, or an integer of thousands of digits
        raise RequestError(f"expected a JSON object in UTF-8: {str(err)[:200]}") from None


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part)[:MAX_NAME_LENGTH] for part in fault["loc"]) or "the body"
    return f"{where}: {fault['msg']}, got {reprlib.repr(fault['input'])}"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:32]} is too large a number")
    return value


# Python's decoder would take NaN and Infinity, and make 1e999 infinite.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
