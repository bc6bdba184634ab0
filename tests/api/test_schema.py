"""Messages are strict JSON within their bounds."""

import json

import pytest

from xpi_ray.api.schema import InferRequest, model_metadata, parse_infer_request
from xpi_ray.errors import RequestError

TENSOR = '{"name":"image","datatype":"UINT8","shape":[1],"data":[1]}'


def test_reads_a_message():
    """Members keep their JSON types: true stays a bool and 1 an int."""
    text = f'{{"id":"a","parameters":{{"f":true,"i":1,"x":0.5,"s":"t"}},"inputs":[{TENSOR}]}}'
    request = parse_infer_request(text.encode())
    assert request == InferRequest.model_validate(json.loads(text))
    assert [type(value) for value in request.parameters.values()] == [bool, int, float, str]


def test_ignores_members_that_it_does_not_know():
    """A client's extension is no error."""
    text = f'{{"model_name":"x","inputs":[{TENSOR}],"outputs":null,"id":null}}'
    assert parse_infer_request(text.encode()).outputs is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "expected a JSON object"),
        (b'{"inputs":', "expected a JSON object"),
        (b"{} x", "expected a JSON object"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"inputs":[' * 20_000, "nested too deeply"),
        (b"[]", "the body: Input should be"),
        (b"3", "the body: Input should be"),
        (b"null", "the body: Input should be"),
        (b"{}", "inputs: Field required"),
        (b'{"inputs":{}}', "inputs: Input should be a valid list"),
        (b'{"inputs":[3]}', r"inputs\.0"),
        (b'{"inputs":[{}]}', r"inputs\.0\.name"),
        (b'{"inputs":[],"x":NaN}', "NaN is not"),
        (b'{"inputs":[],"x":-Infinity}', "-Infinity is not"),
        (b'{"inputs":[],"x":1e999}', "too large a number"),
        (b'{"inputs":[],"x":' + b"9" * 5000 + b"}", "expected a JSON object"),
        (b'{"inputs":[],"id":"\xff"}', "UTF-8"),
        ('{"inputs":[]}'.encode("utf-16"), "UTF-8"),
        (b'{"inputs":[],"id":"\\ud800"}', "id: "),
        (b'{"inputs":[],"id":5}', "id: Input should be a valid string"),
        (b'{"inputs":[],"id":"' + b"a" * 1025 + b'"}', "id: String should have at most 1024"),
        (b'{"inputs":[],"parameters":[]}', "parameters"),
        (b'{"inputs":[],"parameters":{"a":[1]}}', r"parameters\.a"),
        (b'{"inputs":[],"parameters":{"a":null}}', r"parameters\.a"),
        (b'{"inputs":[],"outputs":[{"name":7}]}', r"outputs\.0\.name"),
        (TENSOR.replace("[1]", "[true]", 1).join(['{"inputs":[', "]}"]).encode(), "shape"),
        (TENSOR.replace("[1]", "[1.0]", 1).join(['{"inputs":[', "]}"]).encode(), "shape"),
        (TENSOR.replace("[1]", '["1"]', 1).join(['{"inputs":[', "]}"]).encode(), "shape"),
        (TENSOR.replace("[1]", "[" + "1," * 99 + "1]", 1).join(['{"inputs":[', "]}"]).encode(),
         "shape: List should have at most 64"),
        (f'{{"inputs":[{",".join([TENSOR] * 65)}]}}'.encode(), "inputs: List should have at most"),
    ],
    ids=lambda value: repr(value[:32]),
)  # fmt: skip
def test_refuses(text, message):
    """Whatever is not the message, in strict JSON, is refused and the fault named."""
    with pytest.raises(RequestError, match=message) as caught:
        parse_infer_request(text)
    assert len(str(caught.value)) < 600  # never echoes a large body


def test_describes_the_model(facts):
    """The model takes pixels of its own size and gives as many logits as it has labels."""
    metadata = model_metadata(facts)
    assert metadata.inputs[0].shape == (-1, 3, 5, 4)
    assert metadata.outputs[0].shape == (-1, 3)
    assert [tensor.name for tensor in metadata.outputs] == [
        "logits", "label", "exit", "tier", "status",
    ]  # fmt: skip
