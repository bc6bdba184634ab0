"""Arrays survive both encodings, and tritonclient reads and writes the same bytes."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tritonclient.http import InferenceServerClient, InferInput

from xpi_ray.api.schema import MAX_BATCH, parse_infer_request
from xpi_ray.api.tensors import OutputChoice, read_images, split, write_outputs

SHAPE = (3, 5, 4)
PIXELS = arrays(np.uint8, st.integers(1, MAX_BATCH).map(lambda n: (n, *SHAPE)))


def read(body, json_length):
    """Read the images of a body as the handlers do."""
    headers = {} if json_length is None else {"inference-header-content-length": str(json_length)}
    text, binary = split(headers, body)
    return read_images(parse_infer_request(text), binary, SHAPE)


@given(PIXELS, st.booleans())
def test_reads_what_tritonclient_writes(pixels, binary):
    """Pixels arrive as they were, in binary and in JSON."""
    tensor = InferInput("image", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels, binary_data=binary)
    images = read(*InferenceServerClient.generate_request_body([tensor]))
    np.testing.assert_array_equal(images, pixels)
    assert images.dtype == np.uint8
    assert images.flags.writeable  # torch shares its memory


@given(PIXELS)
def test_reads_nested_data(pixels):
    """Nested data means the same as flat data."""
    tensor = {"name": "image", "datatype": "UINT8", "shape": list(pixels.shape)}
    body = json.dumps({"inputs": [tensor | {"data": pixels.tolist()}]}).encode()
    np.testing.assert_array_equal(read(body, None), pixels)


@given(
    st.integers(1, 5).flatmap(
        lambda n: st.tuples(
            arrays(np.float32, (n, 3), elements=st.floats(width=32)),
            arrays(np.int32, n),
            st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=n, max_size=n),
        )
    ),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_tritonclient_reads_what_is_written(values, binaries):
    """Every datatype survives in any mix of encodings, non-finite logits included."""
    arrays_by_name = dict(zip(["logits", "exit", "label"], values, strict=True))
    choices = [OutputChoice(*pair) for pair in zip(arrays_by_name, binaries, strict=True)]
    entries, binary = write_outputs(choices, arrays_by_name)
    text = json.dumps({"outputs": entries}, allow_nan=False).encode()
    result = InferenceServerClient.parse_response_body(text + binary, header_length=len(text))
    finite_or_nan = np.where(binaries[0] | np.isfinite(values[0]), values[0], np.nan)
    np.testing.assert_array_equal(result.as_numpy("logits"), finite_or_nan)
    np.testing.assert_array_equal(result.as_numpy("exit"), values[1])
    labels = result.as_numpy("label").tolist()
    assert [text.decode() if isinstance(text, bytes) else text for text in labels] == values[2]


@pytest.mark.parametrize("binary", [True, False])
def test_entries_declare_their_bytes(binary):
    """``binary_data_size`` adds up to the binary part; without binary there is none."""
    choices = [OutputChoice("exit", binary), OutputChoice("label", binary)]
    entries, part = write_outputs(choices, {"exit": np.array([1, 2], np.int32), "label": ["é", ""]})
    sizes = [entry.get("parameters", {}).get("binary_data_size", 0) for entry in entries]
    assert sizes == ([8, 4 + 2 + 4] if binary else [0, 0])
    assert len(part) == sum(sizes)
