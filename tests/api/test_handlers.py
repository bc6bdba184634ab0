"""Infer requests of real clients are read, bad ones refused, and answers read back."""

import json
from io import BytesIO

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from xpi_ray.api.handlers import InferCall
from xpi_ray.api.tensors import OutputChoice
from xpi_ray.errors import NotFoundError, RequestError, TooLargeError, UnsupportedMediaError
from xpi_ray.inference.answer import Stages, Status

PIXELS = np.arange(120, dtype=np.uint8).reshape(2, 3, 5, 4)
LENGTH = "inference-header-content-length"


def triton_request(pixels=PIXELS, binary=True, **options):
    """Headers and body as tritonclient sends them."""
    tensor = InferInput("image", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels, binary_data=binary)
    body, length = InferenceServerClient.generate_request_body([tensor], **options)
    return ({} if length is None else {LENGTH: str(length)}), body


def json_request(tensor=None, **members):
    """A JSON body with one image of zeros, changed as the arguments say."""
    image = {"name": "image", "datatype": "UINT8", "shape": [1, 3, 5, 4], "data": [0] * 60}
    image |= tensor or {}
    image = {name: value for name, value in image.items() if value is not None}
    return json.dumps({"inputs": [image]} | members).encode()


def binary_request(tensor=None, payload=bytes(60), **members):
    """Headers and body of a binary request, changed as the arguments say."""
    tensor = {"data": None, "parameters": {"binary_data_size": 60}} | (tensor or {})
    text = json_request(tensor, **members)
    return {LENGTH: str(len(text))}, text + payload


def png(height=5, width=4):
    """A PNG file of one colour."""
    buffer = BytesIO()
    Image.new("RGB", (width, height), (10, 20, 30)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("binary", [True, False])
def test_reads_what_tritonclient_sends(handlers, binary):
    """Its default request, without a Content-Type, is read; all outputs come back in binary."""
    headers, body = triton_request(binary=binary, request_id="r1", timeout=250_000)
    call = handlers.parse_infer("toy", None, headers, body)
    np.testing.assert_array_equal(call.images, PIXELS)
    assert call.id == "r1"
    assert call.deadline == (250.0, "timeout")
    assert call.outputs == tuple(
        OutputChoice(name, True) for name in ("logits", "label", "exit", "tier", "status")
    )


def test_sends_the_outputs_that_were_asked_for(handlers):
    """Only the named outputs, in their order, each in its own encoding."""
    wanted = [
        InferRequestedOutput("exit", binary_data=False),
        InferRequestedOutput("logits", binary_data=True),
    ]
    call = handlers.parse_infer("toy", "7", *triton_request(outputs=wanted))
    assert call.outputs == (OutputChoice("exit", False), OutputChoice("logits", True))


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_reads_the_answer(handlers, make_answer, binary):
    """Every output reads back by tritonclient, from either encoding."""
    members = {"id": "r2", "parameters": {"binary_data_output": binary}}
    call = handlers.parse_infer("toy", None, {}, json_request(**members))._replace(images=PIXELS)
    answers = [make_answer([0, 0, 3.5]), make_answer([0.25, 9, 0], Status.BEST_EFFORT, -1.5)]
    reply = handlers.render_infer(call, answers)
    length = reply.headers.get("Inference-Header-Content-Length")
    assert reply.headers["Content-Type"] == (
        "application/octet-stream" if binary else "application/json"
    )
    assert (length is not None) == binary
    result = InferenceServerClient.parse_response_body(reply.body, header_length=length)
    logits = [[0, 0, 3.5], [0.25, 9, 0]]
    np.testing.assert_array_equal(result.as_numpy("logits"), np.array(logits, np.float32))
    np.testing.assert_array_equal(result.as_numpy("exit"), np.array([2, 2], np.int32))
    labels = [text.decode() if binary else text for text in result.as_numpy("label")]
    assert labels == ["pingüino", "dog"]
    message = result.get_response()
    assert message["model_name"] == "toy"
    assert message["model_version"] == "7"
    assert message["id"] == "r2"
    assert message["parameters"] == {  # of several images, the worst
        "xpi_status": "best_effort",
        "xpi_plan_version": 17,
        "xpi_deadline_ms": 1000.0,
        "xpi_deadline_source": "default",
        "xpi_budget_left_ms": -1.5,
    }


def test_one_image_tells_where_it_ran(handlers, make_answer):
    """The parameters of one image's answer hold its exit, its plan and each stage's time."""
    call = handlers.parse_infer("toy", None, {"grpc-timeout": "300m"}, json_request())
    message = json.loads(handlers.render_infer(call, [make_answer([9, 0, 0])]).body)
    stages = {f"xpi_{name}": 0.0 for name in Stages.__dataclass_fields__}
    assert "id" not in message
    assert message["parameters"] == stages | {
        "xpi_exit": 2,
        "xpi_tier": "cloud",
        "xpi_status": "complete",
        "xpi_entropy": 0.1,
        "xpi_partition": 1,
        "xpi_level": 3,
        "xpi_plan_version": 17,
        "xpi_frame_bytes": 420,
        "xpi_deadline_ms": 300.0,
        "xpi_deadline_source": "grpc-timeout",
        "xpi_budget_left_ms": 12.346,
        "xpi_edge_ms": 1.235,
        "xpi_total_ms": 9.0,
    }


def test_answers_are_strict_json(handlers, make_answer):
    """A network gone mad yields null, never NaN, in either reply."""
    answer = make_answer([float("nan"), float("inf"), 0], left_ms=float("-inf"))

    def refuse(name):
        raise AssertionError(f"{name} in strict JSON")

    call = handlers.parse_infer("toy", None, {}, json_request())
    message = json.loads(handlers.render_infer(call, [answer]).body, parse_constant=refuse)
    assert message["outputs"][0]["data"] == [None, None, 0.0]
    assert "xpi_budget_left_ms" not in message["parameters"]
    classify = handlers.parse_classify({}, "exits=1", png())
    json.loads(handlers.render_classify(classify, answer).body, parse_constant=refuse)


SHAPES = [[], [60], [3, 5, 4], [1, 3, 4, 5], [1, 3, 5, 4, 1], [0, 3, 5, 4], [-1, 3, 5, 4],
          [33, 3, 5, 4], [2, 3, 5, 4], [2**32, 3, 5, 4], [1, 3, 2**32, 2**32], [10**400, 3, 5, 4],
          [1, -3, -5, 4]]  # fmt: skip
NESTED = np.zeros((1, 3, 5, 4), int).tolist()
BAD_INFER = {
    **{f"shape {str(shape)[:20]}": ({}, json_request({"shape": shape})) for shape in SHAPES},
    **{f"binary shape {str(shape)[:20]}": binary_request({"shape": shape}) for shape in SHAPES},
    **{
        f"datatype {name}": ({}, json_request({"datatype": name}))
        for name in ("FP32", "INT8", "BYTES", "uint8", "FOO", "")
    },
    **{
        f"element {value!r:.12}": ({}, json_request({"data": [0] * 59 + [value]}))
        for value in (True, "1", 1.0, 0.5, None, -1, 256, 2**64, 10**400, [1], {})
    },
    "data empty": ({}, json_request({"data": []})),
    "data too short": ({}, json_request({"data": [0] * 59})),
    "data too long": ({}, json_request({"data": [0] * 61})),
    "data a text": ({}, json_request({"data": "AAAA"})),
    "data nested otherwise": ({}, json_request({"data": [[0] * 60]})),
    "data ragged": ({}, json_request({"data": [[*NESTED[0][:2], NESTED[0][2][:4]]]})),
    "data nested too deep": ({}, json_request({"data": [NESTED]})),
    "data missing": ({}, json_request({"data": None})),
    "NaN in data": ({}, json_request({"data": [0] * 59 + [float("nan")]})),
    "Infinity in data": ({}, json_request({"data": [0] * 59 + [float("inf")]})),
    "1e999 in data": ({}, json_request().replace(b"0]", b"1e999]")),
    "no inputs": ({}, json_request(inputs=[])),
    "other input": ({}, json_request({"name": "picture"})),
    "extra input": ({}, json_request(inputs=json.loads(json_request())["inputs"] * 2)),
    "no JSON": ({}, b""),
    "cut JSON": ({}, json_request()[:-1]),
    "deep JSON": ({}, b'{"inputs":' * 20_000),
    "not UTF-8": ({}, json_request().replace(b"image", b"im\xffge")),
    "NUL in a name": ({}, json_request({"name": "image\0"})),
    "long id": ({}, json_request(id="a" * 1_000_000)),
    "many keys": ({}, json_request(parameters={str(i): i for i in range(9_000)})),
    "unknown output": ({}, json_request(outputs=[{"name": "boxes"}])),
    "output twice": ({}, json_request(outputs=[{"name": "exit"}] * 2)),
    "classification": (
        {}, json_request(outputs=[{"name": "logits", "parameters": {"classification": 2}}])
    ),
    "binary_data no flag": (
        {}, json_request(outputs=[{"name": "logits", "parameters": {"binary_data": 1}}])
    ),
    "binary_data_output no flag": ({}, json_request(parameters={"binary_data_output": "yes"})),
    "shared memory": (
        {}, json_request({"data": None, "parameters": {"shared_memory_region": "r"}})
    ),
    "shared memory output": (
        {}, json_request(outputs=[{"name": "exit", "parameters": {"shared_memory_region": "r"}}])
    ),
    "timeout a text": ({}, json_request(parameters={"timeout": "abc"})),
    "timeout negative": ({}, json_request(parameters={"timeout": -5})),
    "deadline 0": ({"grpc-timeout": "0S"}, json_request()),
    **{
        f"header length {text!r}": ({LENGTH: text}, binary_request()[1])
        for text in ("-1", "0", "1.5", "abc", "", "99999", "9" * 5000, "١", "+10", "10", " 10")
    },
    "both data and binary": binary_request({"data": [0] * 60}),
    "leftover after JSON data": binary_request({"data": [0] * 60, "parameters": {}}),
    "binary without a header": ({}, binary_request()[1]),
    "binary size without a header": ({}, binary_request(payload=b"")[1]),
    "binary size missing": binary_request({"parameters": {}}),
    **{
        f"binary size {size!r}": binary_request({"parameters": {"binary_data_size": size}})
        for size in (59, 61, 0, -60, "60", True, 10**400)
    },
    "binary too short": binary_request(payload=bytes(59)),
    "binary too long": binary_request(payload=bytes(61)),
    "binary empty": binary_request(payload=b""),
}  # fmt: skip


@pytest.mark.parametrize(("headers", "body"), BAD_INFER.values(), ids=list(BAD_INFER))
def test_refuses_bad_infer_requests(handlers, headers, body):
    """Each is the client's fault, status 400, in a message of bounded length."""
    with pytest.raises(RequestError) as caught:
        handlers.parse_infer("toy", None, headers, body)
    assert caught.value.status == 400 or len(body) > handlers.max_infer_bytes
    assert 0 < len(str(caught.value)) < 600


def test_the_good_request_of_the_bad_ones_is_good(handlers):
    """What the list above changes is accepted unchanged, so each entry fails for its own fault."""
    handlers.parse_infer("toy", None, {}, json_request())
    handlers.parse_infer("toy", None, {}, json_request({"data": NESTED}))
    handlers.parse_infer("toy", None, *binary_request())


def test_a_full_batch_in_loose_json_fits(handlers):
    """The limit of bytes leaves room for the largest batch, indented."""
    pixels = np.full((32, 3, 5, 4), 255)
    tensor = {"shape": list(pixels.shape), "data": pixels.ravel().tolist()}
    body = json.dumps(json.loads(json_request(tensor)), separators=(" , ", " : ")).encode()
    assert len(handlers.parse_infer("toy", None, {}, body).images) == 32
    with pytest.raises(TooLargeError):
        handlers.parse_infer("toy", None, {}, bytes(handlers.max_infer_bytes + 1))


@pytest.mark.parametrize(("model", "version"), [("other", None), ("toy", "8"), ("../toy", "7")])
def test_knows_only_its_model(handlers, model, version):
    """Another name or version is not found, wherever it is asked for."""
    for ask in (
        lambda: handlers.parse_infer(model, version, {}, json_request()),
        lambda: handlers.model_metadata(model, version),
        lambda: handlers.model_ready(model, version, True),
    ):
        with pytest.raises(NotFoundError, match="expected"):
            ask()


def test_refuses_compressed_bodies(handlers):
    """Nothing is inflated, so no small body becomes a large one."""
    for parse in (
        lambda headers: handlers.parse_infer("toy", None, headers, json_request()),
        lambda headers: handlers.parse_classify(headers, "", png()),
    ):
        parse({"content-encoding": "identity"})
        with pytest.raises(UnsupportedMediaError, match="gzip"):
            parse({"content-encoding": "gzip"})


def test_health_and_metadata(handlers):
    """Bodies hold what kserve's client reads and statuses what tritonclient reads."""
    assert json.loads(handlers.live().body) == {"live": True}
    assert (handlers.live().status, handlers.ready(True).status) == (200, 200)
    assert json.loads(handlers.ready(True).body) == {"ready": True, "live": True}
    assert handlers.ready(False).status == 503
    assert json.loads(handlers.ready(False).body)["ready"] is False
    assert handlers.model_ready("toy", "7", False).status == 503
    assert json.loads(handlers.model_ready("toy", None, True).body) == {
        "name": "toy",
        "ready": True,
    }
    assert json.loads(handlers.server_metadata().body)["extensions"] == ["binary_tensor_data"]
    metadata = json.loads(handlers.model_metadata("toy", "7").body)
    assert metadata["versions"] == ["7"]
    assert metadata["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 3, 5, 4]}]


TEXT = st.text(max_size=20)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        LENGTH: TEXT | st.integers(-5, 200).map(str),
        "content-encoding": TEXT,
        "grpc-timeout": TEXT,
        "x-request-timeout-seconds": TEXT,
    },
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(headers=HEADERS, body=st.binary(max_size=300) | JSON.map(lambda x: json.dumps(x).encode()))
def test_arbitrary_bytes_are_no_infer_request(handlers, headers, body):
    """Whatever the bytes, the only outcome is a RequestError."""
    with pytest.raises(RequestError):
        handlers.parse_infer("toy", None, headers, body)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    members=st.dictionaries(st.sampled_from(["id", "parameters", "inputs", "outputs"]), JSON),
    tensor=st.dictionaries(
        st.sampled_from(["name", "datatype", "shape", "data", "parameters"]), JSON
    ),
)
def test_almost_right_infer_requests_are_read_or_refused(handlers, members, tensor):
    """One member replaced by any JSON at all: a call of the right shape or a RequestError."""
    try:
        call = handlers.parse_infer("toy", None, {}, json_request(tensor, **members))
    except RequestError:
        return
    assert isinstance(call, InferCall)
    assert call.images.shape == (1, 3, 5, 4)
