"""The learned policy serves and learns on, and its trainer's death changes nothing for requests."""

import os
import signal
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import ray
from ray import serve
from ray.exceptions import ActorUnavailableError

from deployments import app, trainer
from deployments.args import SCHEDULER_APP, SchedulerArgs
from deployments.deciding import name_of
from deployments.journal import replay
from rl.lesson import Lesson
from xpi_ray.policies.experience import Experience, pick
from xpi_ray.policies.learned import Learned, from_bytes
from xpi_ray.policies.observation import Observation

pytestmark = pytest.mark.ray

PHOTO = (Path(__file__).parents[1] / "data" / "cat.jpg").read_bytes()


def versions_rise(client: httpx.Client, count: int, timeout_s: float = 30) -> None:
    """Ask until answers came by so many newer plans; every request must be answered."""
    seen: set[int] = set()
    end = time.monotonic() + timeout_s
    while len(seen) <= count and time.monotonic() < end:
        reply = client.post("/v1/classify?deadline_ms=2000", content=PHOTO)
        assert reply.status_code == 200, reply.text
        seen.add(reply.json()["plan_version"])
    assert len(seen) > count, f"expected {count} newer plans, got versions {sorted(seen)}"


def asked(method: str, *arguments: object, timeout_s: float = 60) -> object:
    """What the trainer answers, as soon as it is there."""
    end = time.monotonic() + timeout_s
    while True:
        try:
            actor = ray.get_actor(trainer.NAME, trainer.NAMESPACE)
            return ray.get(getattr(actor, method).remote(*arguments), timeout=timeout_s)
        except ActorUnavailableError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def trainer_pid() -> int:
    pid = asked("__ray_call__", lambda self: os.getpid())
    assert isinstance(pid, int)
    return pid


def tried(policy: Learned) -> list[Experience]:
    """What a policy might have tried."""
    view = policy.viewer.view(Observation(edge_slowdown=4), 100)
    picks = (pick(policy, view, np.random.default_rng(seed)) for seed in range(32))
    return [Experience(each, 0.1 * each.action) for each in picks]


def test_a_killed_trainer_changes_nothing(client, bundle, make_policy, tmp_path):
    """Plans of a learned policy come, also while its trainer is gone; each can be made again."""
    policy, journal = make_policy(bundle), tmp_path / "journal.jsonl"
    (tmp_path / "policy").write_bytes(policy)
    args = SchedulerArgs(
        period_s=0.2, policy_file=str(tmp_path / "policy"), learn=True, journal=str(journal)
    )
    scheduler = serve.run(app.scheduler(args), name=SCHEDULER_APP, route_prefix=None)
    try:
        versions_rise(client, 5)
        killed = trainer_pid()
        os.kill(killed, signal.SIGKILL)
        versions_rise(client, 5)
        assert trainer_pid() != killed
        learned = from_bytes(policy, bundle.manifest.profiles["default"], bundle.candidates())
        lesson = asked("learn", policy, tried(learned), [])
        assert isinstance(lesson, Lesson)
        assert lesson.facts["experiences"] == 32
        assert "expected a site" in lesson.facts["refused"]
        entries = scheduler.recent_entries.remote().result(timeout_s=10)
    finally:
        serve.delete(SCHEDULER_APP)
    decisions = [entry for entry in entries if entry["kind"] == "decision"]
    assert len(decisions) > 10
    deciders = {plan["policy"] for entry in decisions for plan in entry["plans"].values()}
    assert deciders == {name_of(policy)}
    assert {difference for difference in replay(journal)} == {None}
