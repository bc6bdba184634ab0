"""Tensors between the wire and numpy, in JSON and in the binary-tensor extension.

    body ─► split ─► JSON ─► InferRequest ─┐
               └───► binary part ──────────┴─► read_images ─► pixels (n,3,H,W)
    arrays ─► write_outputs ─► JSON entries, binary part

Extension: Triton's ``binary_tensor_data``. The body is JSON and then the tensors' bytes,
little-endian and row-major; ``Inference-Header-Content-Length`` says where the JSON ends.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xpi_ray.api.schema import MAX_BATCH, InferRequest, InputTensor, Parameters
from xpi_ray.errors import RequestError

LENGTH_HEADER = "Inference-Header-Content-Length"
BINARY_SIZE = "binary_data_size"

_DATATYPES = {"f": "FP32", "i": "INT32"}  # by numpy's kind, for what is sent

Pixels = NDArray[np.uint8]
Texts = Sequence[str]  # a BYTES tensor (n,)


class OutputChoice(NamedTuple):
    """One output to send, and how."""

    name: str
    binary: bool


def split(headers: Mapping[str, str], body: bytes) -> tuple[memoryview, memoryview]:
    """Cut a body into its JSON and its binary part.

    Args:
        headers: Names in lower case.
        body: All of it.

    Raises:
        RequestError: The header is no whole number of 1..len(body).
    """
    view = memoryview(body)
    text = headers.get(LENGTH_HEADER.lower())
    if text is None:
        return view, view[len(view) :]
    length = int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else -1
    if length == 0:
        raise RequestError(
            f"{LENGTH_HEADER}: 0 (a raw tensor without its JSON) is not supported; send the JSON "
            "too, or post the image itself to /v1/classify"
        )
    if not 0 < length <= len(body):
        raise RequestError(
            f"{LENGTH_HEADER} must be the bytes of JSON in the body, 1 to {len(body)}, "
            f"got {text[:64]!r}"
        )
    return view[:length], view[length:]


def read_images(
    request: InferRequest, binary: memoryview, image_shape: tuple[int, int, int]
) -> Pixels:
    """Read the one input, ``image``: UINT8 pixels 0..255.

    Args:
        request: The JSON part.
        binary: The binary part, empty when there is none.
        image_shape: (3, H, W) of the network.

    Returns:
        A new array (n, 3, H, W), n in 1..MAX_BATCH.

    Raises:
        RequestError: Not that input alone, or its data is not what it declares.
    """
    names = [tensor.name for tensor in request.inputs]
    if names != ["image"]:
        raise RequestError(f"expected exactly one input, 'image', got {names[:8]}")
    tensor = request.inputs[0]
    if tensor.datatype != "UINT8":
        raise RequestError(f"input 'image' must be of datatype UINT8, got {tensor.datatype!r}")
    count, *rest = tensor.shape or [0]
    if rest != list(image_shape) or not 1 <= count <= MAX_BATCH:
        raise RequestError(
            f"input 'image' must have shape {['n', *image_shape]} with n of 1..{MAX_BATCH}, "
            f"got {_shown(tensor.shape)}"
        )
    data = _binary_data(tensor, binary) if tensor.data is None else _json_data(tensor, binary)
    return np.frombuffer(data, np.uint8).reshape(tensor.shape).copy()


def _binary_data(tensor: InputTensor, binary: memoryview) -> memoryview:
    parameters = tensor.parameters or {}
    expected, declared = math.prod(tensor.shape), parameters.get(BINARY_SIZE)
    if declared is None:
        _refuse_shared_memory(parameters)
        raise RequestError(
            f"input 'image' has neither 'data' nor the parameter '{BINARY_SIZE}'; send one of them"
        )
    if isinstance(declared, bool) or declared != expected:
        raise RequestError(
            f"'{BINARY_SIZE}' must be the {expected} bytes of shape {tensor.shape}, "
            f"got {str(declared)[:32]!r}"
        )
    if len(binary) != expected:
        raise RequestError(
            f"expected {expected} bytes of tensor after the JSON, got {len(binary)}; "
            f"{LENGTH_HEADER} must say where the JSON ends"
        )
    return binary


def _json_data(tensor: InputTensor, binary: memoryview) -> bytes:
    if BINARY_SIZE in (tensor.parameters or {}):
        raise RequestError(f"input 'image' has both 'data' and '{BINARY_SIZE}'; send one of them")
    if len(binary):
        raise RequestError(f"expected nothing after the JSON, got {len(binary)} bytes")
    values = _flat(tensor.data or [], tensor.shape)
    if set(map(type, values)) != {int}:
        raise RequestError("input 'image': data must be whole numbers 0..255 and nothing else")
    try:
        return bytes(values)  # type: ignore[arg-type]  # all int, as just seen
    except ValueError:
        raise RequestError("input 'image': data must lie in 0..255") from None


def _flat(data: list[object], shape: list[int]) -> list[object]:
    """Row-major values of data that is flat already, or nested exactly as ``shape`` says."""
    if data and isinstance(data[0], list):
        for size in shape[1:]:
            rows = [row for row in data if isinstance(row, list) and len(row) == size]
            if len(rows) != len(data):
                raise RequestError(f"input 'image': data is not nested as shape {shape} says")
            data = list(chain.from_iterable(rows))
    if len(data) != math.prod(shape):
        raise RequestError(
            f"input 'image': shape {shape} takes {math.prod(shape)} numbers, got {len(data)}"
        )
    return data


def choose_outputs(request: InferRequest, known: Sequence[str]) -> tuple[OutputChoice, ...]:
    """Which outputs to send and which of them in binary; all when none is named.

    Raises:
        RequestError: An output is unknown, named twice, or asked for in a way that is not served.
    """
    default = _flag(request.parameters or {}, "binary_data_output", False)
    if not request.outputs:
        return tuple(OutputChoice(name, default) for name in known)
    names = [output.name for output in request.outputs]
    if len(set(names)) < len(names) or not set(names) <= set(known):
        raise RequestError(f"outputs must be some of {list(known)}, each once, got {names[:8]}")
    choices = []
    for output in request.outputs:
        parameters = output.parameters or {}
        _refuse_shared_memory(parameters)
        if parameters.get("classification"):
            raise RequestError("'classification' is not supported; ask for the output 'label'")
        choices.append(OutputChoice(output.name, _flag(parameters, "binary_data", default)))
    return tuple(choices)


def _flag(parameters: Parameters, name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise RequestError(f"'{name}' must be true or false, got {str(value)[:32]!r}")
    return value


def _refuse_shared_memory(parameters: Parameters) -> None:
    if any(name.startswith("shared_memory_") for name in parameters):
        raise RequestError("shared memory is not supported; send and ask for data in the body")


def _shown(shape: list[int]) -> str:
    return str(shape[:8])[:128]


def write_outputs(
    choices: Sequence[OutputChoice], arrays: Mapping[str, NDArray[np.generic] | Texts]
) -> tuple[list[dict[str, object]], bytes]:
    """Write the chosen outputs.

    Args:
        choices: What to send, in order.
        arrays: By output name; float32 (n, K), int32 (n,), or n texts.

    Returns:
        The entries of the response's ``outputs``, and its binary part.
    """
    entries: list[dict[str, object]] = []
    parts: list[bytes] = []
    for name, binary in choices:
        values = arrays[name]
        datatype, shape = "BYTES", [len(values)]
        if isinstance(values, np.ndarray):
            datatype, shape = _DATATYPES[values.dtype.kind], list(values.shape)
        entry: dict[str, object] = {"name": name, "datatype": datatype, "shape": shape}
        if binary:
            parts.append(_to_bytes(values))
            entry["parameters"] = {BINARY_SIZE: len(parts[-1])}
        else:
            entry["data"] = _to_json(values)
        entries.append(entry)
    return entries, b"".join(parts)


def _to_bytes(values: NDArray[np.generic] | Texts) -> bytes:
    if isinstance(values, np.ndarray):
        return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    encoded = [text.encode() for text in values]
    return b"".join(struct.pack("<I", len(text)) + text for text in encoded)


def _to_json(values: NDArray[np.generic] | Texts) -> list[object]:
    if not isinstance(values, np.ndarray):
        return list(values)
    flat: list[object] = values.ravel().tolist()
    if not np.isfinite(values).all():  # JSON has no word for them; null reads back as NaN
        return [value if math.isfinite(value) else None for value in flat]  # type: ignore[arg-type]
    return flat
