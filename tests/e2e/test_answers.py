"""A cluster of two nodes answers real clients, wherever the network is split."""

import io
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
import tritonclient.http as triton
from PIL import Image
from ray import serve

from deployments import app
from deployments.args import SiteArgs, site_app_name
from xpi_ray.training.data import data_folder, load

pytestmark = pytest.mark.ray

PHOTO = Path(__file__).parents[1] / "data" / "cat.jpg"
IMAGES = 100


@pytest.fixture(scope="module")
def images():
    """Test images of CIFAR-10 where they are, else crops of the photo: real ones in any case."""
    if data_folder() is not None:
        return load("cifar10").test.images[:IMAGES].numpy()
    photo = np.asarray(Image.open(PHOTO).convert("RGB").resize((320, 320)))
    tiles = photo.reshape(10, 32, 10, 32, 3).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(tiles.reshape(IMAGES, 3, 32, 32))


def as_file(kind):
    out = io.BytesIO()
    Image.open(PHOTO).save(out, kind)
    return out.getvalue()


def test_each_deployment_runs_on_a_node_of_its_tier(cluster):
    """Router and edge executor run on the edge node, the cloud executor on the cloud node."""
    tiers = {r.deployment: r.labels["xpi-tier"] for r in cluster.replicas()}
    assert tiers == {"Router": "edge", "EdgeExecutor": "edge", "CloudExecutor": "cloud"}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_photo_of_any_kind_is_classified(client, plans, kind):
    """PNG, JPEG and WebP get a label, by file or by form."""
    plans.push(12)
    data = as_file(kind)
    raw = client.post("/v1/classify?deadline_ms=5000", content=data)
    form = client.post("/v1/classify", files={"image": data}, data={"deadline_ms": "5000"})
    assert raw.status_code == form.status_code == 200, raw.text + form.text
    assert raw.json()["label"] == form.json()["label"]
    assert raw.json()["status"] == "complete"
    assert raw.json()["deadline_ms"] == 5000


def test_tritonclient_gets_the_network_s_own_logits(cluster, plans, bundle, images):
    """Default tritonclient gets answers bit-identical to the network run in one process."""
    plans.push(12)
    network = bundle.network.prepare()
    client = triton.InferenceServerClient(cluster.url.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("cifar10")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for image in images:
            tensor = triton.InferInput("image", [1, 3, 32, 32], "UINT8")
            tensor.set_data_from_numpy(image[None])
            answer = client.infer("cifar10", [tensor], request_id="seven")
            with torch.inference_mode():
                expected = network(torch.from_numpy(image[None]))[-1].numpy()
            assert answer.get_response()["id"] == "seven"
            np.testing.assert_array_equal(answer.as_numpy("logits"), expected)
            label = answer.as_numpy("label")[0].decode()
            assert label == bundle.manifest.labels[int(expected.argmax())]
    finally:
        torch.set_num_threads(threads)
        client.close()


@pytest.mark.parametrize("partition", [0, 3, 6, 9, 12])
def test_a_split_network_agrees_with_the_whole(client, plans, bundle, images, partition):
    """With exact carries, edge and cloud together give the label of the whole network."""
    version = plans.push(partition, threshold=0.0, level=0)
    with torch.inference_mode():
        whole = bundle.network.prepare()(torch.from_numpy(images[:32]))[-1]
    request = {
        "inputs": [
            {
                "name": "image",
                "datatype": "UINT8",
                "shape": [32, 3, 32, 32],
                "data": images[:32].flatten().tolist(),
            }
        ],
        "parameters": {"deadline_ms": 20_000},  # 32 exact carries on a busy machine
    }
    answer = client.post("/v2/models/cifar10/infer", json=request).raise_for_status().json()
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    assert outputs["exit"] == [12] * 32
    assert set(outputs["tier"]) == {"edge" if partition == 12 else "cloud"}
    assert answer["parameters"]["xpi_plan_version"] == version
    logits = np.array(outputs["logits"]).reshape(32, -1)
    np.testing.assert_array_equal(logits.argmax(1), whole.numpy().argmax(1))
    np.testing.assert_allclose(logits, whole.numpy(), atol=0.1)  # they span some 20


def test_what_crosses_the_link_is_a_compressed_frame(client, plans, bundle):
    """At level 3 a carry crosses in a quarter of a byte a value, and the answer says so."""
    plans.push(6, threshold=0.0, level=3)
    answer = client.post("/v1/classify?deadline_ms=5000", content=PHOTO.read_bytes()).json()
    elements = np.prod(bundle.network.carry_shape(6))
    assert 0 < answer["frame_bytes"] < elements / 4 + 200
    assert answer["tier"] == "cloud"
    assert answer["stages"]["link_ms"] > 0


def test_an_image_crosses_once_no_exit_was_sure(client, plans, bundle):
    """Beyond the ladder's levels it goes itself, and every exit is what it is without a link."""
    url, data = "/v1/classify?deadline_ms=5000&exits=true", PHOTO.read_bytes()
    plans.push(12, threshold=0.0)
    whole = client.post(url, content=data).json()
    plans.push(4, threshold=0.0, level=bundle.num_levels - 1)
    answer = client.post(url, content=data).json()
    assert (answer["tier"], answer["partition"], answer["exit"]) == ("cloud", 4, 12)
    assert [each["tier"] for each in answer["exits"]] == ["edge"] * 4 + ["cloud"] * 8
    for one, other in zip(answer["exits"], whole["exits"], strict=True):
        assert one["label"] == other["label"]
        assert one["entropy"] == pytest.approx(other["entropy"], abs=1e-3)
    assert 0 < answer["frame_bytes"] < 5_000
    assert answer["stages"]["encode_ms"] == 0 < answer["stages"]["link_ms"]


def test_every_exit_is_told_on_request(client, plans):
    """With ``exits=true`` the answer lists each exit that ran, edge before cloud."""
    plans.push(4, threshold=0.0)
    url = "/v1/classify?deadline_ms=5000&exits=true"
    exits = client.post(url, content=PHOTO.read_bytes()).json()["exits"]
    assert [exit_["exit"] for exit_ in exits] == list(range(1, 13))
    assert [exit_["tier"] for exit_ in exits] == ["edge"] * 4 + ["cloud"] * 8


def test_the_first_sure_exit_answers(client, plans):
    """With thresholds at 1 the first exit is always sure, and nothing else runs."""
    plans.push(6, threshold=1.0)
    answer = client.post("/v1/classify?deadline_ms=5000", content=PHOTO.read_bytes()).json()
    assert (answer["exit"], answer["tier"], answer["status"]) == (1, "edge", "complete")
    assert answer["frame_bytes"] == 0


def test_a_trace_follows_a_request_through_both_tiers(client, plans, traces):
    """The client's trace goes on through router, edge, link and cloud; times agree within 2 ms."""
    plans.push(4, threshold=0.0)
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    header = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
    reply = client.post("/v1/classify?deadline_ms=5000", content=PHOTO.read_bytes(), headers=header)
    answer: dict = reply.raise_for_status().json()
    spans = {}
    for _ in range(100):
        spans = {s["name"]: s for s in traces.spans if s["trace_id"] == trace_id}
        if len(spans) == 4:
            break
        traces.wait(len(traces.spans) + 1, timeout_s=0.2)
    assert set(spans) == {"xpi.request", "xpi.edge", "xpi.link", "xpi.cloud"}
    assert spans["xpi.request"]["parent_id"] == "00f067aa0ba902b7"
    assert spans["xpi.edge"]["parent_id"] == spans["xpi.request"]["span_id"]
    assert spans["xpi.link"]["parent_id"] == spans["xpi.request"]["span_id"]
    assert spans["xpi.cloud"]["parent_id"] == spans["xpi.link"]["span_id"]
    attributes = spans["xpi.request"]["attributes"]
    assert attributes["xpi.exit"] == answer["exit"]
    assert attributes["xpi.status"] == "complete"
    assert attributes["http.response.status_code"] == 200
    stages = answer["stages"]
    for name, told_ms in {
        "xpi.edge": stages["edge_ms"] + stages["encode_ms"],
        "xpi.cloud": stages["cloud_wait_ms"] + stages["decode_ms"] + stages["cloud_ms"],
    }.items():
        taken_ms = (spans[name]["end_ns"] - spans[name]["start_ns"]) / 1e6
        assert taken_ms >= told_ms - 2


def test_a_request_without_a_deadline_gets_the_default(client, plans):
    """The answer says which deadline held and where it came from."""
    plans.push(12)
    answer = client.post("/v1/classify", content=PHOTO.read_bytes()).json()
    assert (answer["deadline_ms"], answer["deadline_source"]) == (1000, "default")


def test_the_server_describes_itself(client):
    """Metadata names the model, its input and its outputs."""
    model = client.get("/v2/models/cifar10").json()
    assert model["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 3, 32, 32]}]
    assert {output["name"] for output in model["outputs"]} >= {"logits", "label", "exit"}
    assert client.get("/v2").json()["name"]
    assert client.get("/v2/health/live").json() == {"live": True}


@pytest.fixture
def bad_requests():
    ok = {"name": "image", "datatype": "UINT8", "shape": [1, 3, 32, 32], "data": [0] * 3072}
    infer = "/v2/models/cifar10/infer"
    return {
        "wrong JSON": (infer, b"{", 400),
        "unknown model": ("/v2/models/none/infer", b"{}", 404),
        "unknown input": (infer, {"inputs": [{**ok, "name": "x"}]}, 400),
        "unknown dtype": (infer, {"inputs": [{**ok, "datatype": "FP4"}]}, 400),
        "wrong dtype": (infer, {"inputs": [{**ok, "datatype": "FP32"}]}, 400),
        "shape and data disagree": (infer, {"inputs": [{**ok, "data": [0]}]}, 400),
        "NaN": (infer, b'{"inputs":[{"name":"image","data":[NaN]}]}', 400),
        "infinity": (infer, b'{"inputs":[{"name":"image","data":[1e999]}]}', 400),
        "empty image": ("/v1/classify", b"", 400),
        "truncated image": ("/v1/classify", PHOTO.read_bytes()[:2000], 400),
        "image bomb": ("/v1/classify", bomb(), 413),
        "body over the limit": ("/v1/classify", bytes(12 << 20), 413),
        "zero deadline": ("/v1/classify?deadline_ms=0", PHOTO.read_bytes(), 400),
        "negative deadline": ("/v1/classify?deadline_ms=-1", PHOTO.read_bytes(), 400),
        "absurd deadline": ("/v1/classify?deadline_ms=1e18", PHOTO.read_bytes(), 400),
        "unknown path": ("/v1/nothing", b"", 404),
    }


def bomb() -> bytes:
    """A PNG that claims 60,000 x 60,000 pixels, 10 GB when decoded."""
    out = io.BytesIO()
    Image.new("1", (60_000, 60_000)).save(out, "PNG")
    return out.getvalue()


def test_bad_input_is_a_4xx_and_the_server_goes_on(client, plans, bad_requests):
    """Every fault of the client is a 4xx that says what was expected; the next request works."""
    plans.push(12)
    for name, (path, body, status) in bad_requests.items():
        sent = {"content": body} if isinstance(body, bytes) else {"json": body}
        reply = client.post(path, **sent)
        assert reply.status_code == status, f"{name}: {reply.status_code} {reply.text}"
        problem = reply.json()
        assert problem["error"], name
        assert problem["detail"] == problem["error"]
        assert problem["status"] == status
        after = client.post("/v1/classify?deadline_ms=5000", content=PHOTO.read_bytes())
        assert after.status_code == 200, f"after {name}: {after.text}"


def test_a_wrong_verb_is_told_the_right_one(client):
    """405 for GET on an endpoint that takes POST."""
    assert client.get("/v1/classify").status_code == 405


def test_a_client_that_hangs_up_does_no_harm(cluster, client, plans):
    """A request that is given up by its client leaves the server working."""
    plans.push(6, threshold=0.0)
    for _ in range(5):
        with pytest.raises(httpx.TimeoutException):
            httpx.post(f"{cluster.url}/v1/classify", content=PHOTO.read_bytes(), timeout=0.004)
    answer = client.post("/v1/classify?deadline_ms=5000", content=PHOTO.read_bytes())
    assert answer.status_code == 200


def test_a_second_site_runs_its_blocks_in_its_router_or_beside_it(cluster, client, tmp_path):
    """A site is added while others serve; its edge goes on where the cloud does not answer."""
    cluster.add_edge_node("site-2")
    args = SiteArgs(site="site-2", partition=6, early_exit=False, best_effort=False, goes_on=True)
    serve.run(app.site(args), name=site_app_name("site-2"), route_prefix="/site-2")
    url = "/site-2/v1/classify?deadline_ms=5000"
    answer = client.post(url, content=PHOTO.read_bytes()).raise_for_status().json()
    assert answer["status"] == "complete"
    assert min(answer["stages"]["edge_ms"], answer["stages"]["cloud_ms"]) > 0
    assert client.get("/site-2/v2/models/cifar10").status_code == 200
    assert client.post("/v1/classify", content=PHOTO.read_bytes()).status_code == 200
    deployed = {r.deployment for r in cluster.replicas() if r.app == site_app_name("site-2")}
    assert deployed == {"Router"}
    dead = tmp_path / "dead.csv"
    dead.write_text("0 0.000001\n")
    apart = args.model_copy(update={"edge_replicas": 1, "link_trace": str(dead)})
    for partition in (6, 0):  # its executor goes on while what it sent is in flight, for ever
        site = apart.model_copy(update={"partition": partition})
        serve.run(app.site(site), name=site_app_name("site-2"), route_prefix="/site-2")
        answer = client.post(url, content=PHOTO.read_bytes()).raise_for_status().json()
        assert (answer["status"], answer["tier"], answer["exit"]) == ("complete", "edge", 12)
        assert (answer["partition"], answer["frame_bytes"] > 0) == (partition, True)
    serve.delete(site_app_name("site-2"))
