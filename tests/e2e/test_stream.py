"""Exits come over HTTP as they ran, to clients that may stop at any time."""

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import httpx
import pytest
import torch
from ray import serve

from deployments.args import site_app_name
from deployments.preempt_command import preempt_site
from xpi_ray.compression.image import decode_image
from xpi_ray.errors import TierLostError

pytestmark = pytest.mark.ray

PHOTO = Path(__file__).parents[1] / "data" / "cat.jpg"
URL = "/v1/classify/stream"


@pytest.fixture(scope="module")
def photo():
    return PHOTO.read_bytes()


def events(reply):
    """The events of a stream, in order: kind and message."""
    kind = None
    for line in reply.iter_lines():
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, json.loads(value)


def test_exits_come_as_the_network_says(client, bundle, photo):
    """Every exit that comes holds the network's own label, in order, and the end comes last."""
    with client.stream("POST", f"{URL}?stop_within_ms=60000", content=photo) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        *exits, (kind, end) = events(reply)
    assert kind == "end"
    assert end["status"] == "complete"
    assert [kind for kind, _ in exits] == ["exit"] * len(exits)
    numbers = [message["exit"] for _, message in exits]
    assert numbers == sorted(set(numbers))
    network = bundle.network.prepare()
    pixels = torch.from_numpy(decode_image(photo, network.image_size))[None]
    with torch.inference_mode():
        expected = network(pixels)
    if numbers == list(range(1, len(numbers) + 1)):  # none was skipped
        for (_, message), logits in zip(exits, expected, strict=False):
            assert message["label"] == bundle.manifest.labels[int(logits.argmax())]
    assert all(0 <= message["confidence"] <= 1 for _, message in exits)
    times = [message["elapsed_ms"] for _, message in exits]
    assert times == sorted(times)


def test_clients_that_stop_at_random_leave_nothing_behind(cluster, photo):
    """Of 100 clients that hang up at random moments each has an answer if exit 1 came to it.

    Afterwards the edge is idle: requests are answered as before, and no stream is held open.
    """
    rng = random.Random(0)
    stops_s = [rng.uniform(0, 0.02) for _ in range(100)]

    def ask(stop_s):
        with (
            httpx.Client(base_url=cluster.url, timeout=30) as client,
            client.stream("POST", URL, content=photo) as reply,
        ):
            assert reply.status_code == 200
            came = events(reply)
            held = next(came)
            until_s = time.monotonic() + stop_s
            for event in came:
                held = event
                if time.monotonic() > until_s:
                    break
            return held

    with ThreadPoolExecutor(4) as pool:
        held = list(pool.map(ask, stops_s))
    assert all(kind in ("exit", "end") for kind, _ in held)
    with httpx.Client(base_url=cluster.url, timeout=30) as client:
        answer = client.post("/v1/classify?deadline_ms=5000", content=photo)
    assert answer.json()["status"] == "complete"


def test_a_pre_emption_comes_to_all_edges(cluster):
    """A router tells all of its site's edge replicas, and how many requests it ended."""
    router = serve.get_app_handle(site_app_name("site-1"))
    assert router.preempt.remote().result() == 0


def test_a_pre_emption_ends_streams_with_what_they_hold(cluster, photo):
    """Streams that a pre-emption ends say so, and hold the exits that ran before it."""
    done, ends = Event(), []

    def ask():
        with httpx.Client(base_url=cluster.url, timeout=30) as client:
            while not done.is_set():
                with client.stream("POST", URL, content=photo) as reply:
                    *exits, (_, end) = events(reply)
                assert all(message["exit"] <= end["blocks"] for _, message in exits)
                ends.append(end["status"])

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        give_up_s = time.monotonic() + 30
        try:
            while "stopped" not in ends and time.monotonic() < give_up_s:
                ended = preempt_site("site-1")
                assert 0 <= ended <= 2
        finally:
            done.set()
        for each in asking:
            each.result()
    assert "stopped" in ends


def test_a_site_that_is_not_served_cannot_be_pre_empted(cluster):
    """The error names the applications that are there."""
    with pytest.raises(TierLostError, match=r"no application xpi-site-9 .*: .*xpi-site-1"):
        preempt_site("site-9")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("stop_within_ms=-1", "stop_within_ms must be in milliseconds"),
        ("stops_ms=1,soon", "stops_ms must be in milliseconds"),
        ("deadline_ms=100", "expected no fields but stop_within_ms and stops_ms"),
    ],
)
def test_what_cannot_be_is_a_400(client, photo, query, expected):
    """The error comes as a status, before any event."""
    reply = client.post(f"{URL}?{query}", content=photo)
    assert reply.status_code == 400
    assert expected in reply.json()["detail"]


def test_what_is_no_image_is_a_400(client):
    """As in requests with a deadline."""
    assert client.post(URL, content=b"no image").status_code == 400
