import asyncio
import logging

import numpy as np
import pytest

from deployments import scheduler as module
from deployments.args import SLO_CLASSES, SchedulerArgs
from deployments.scheduler import Scheduler

PERIOD_S = 0.01


class Call:
    """Stands for a method of an actor, or a handle's broadcast."""

    def __init__(self, answer):
        self.answer = answer

    async def remote(self, *arguments):
        """Answer at once."""
        return self.answer(*arguments)


class Cluster:
    """The store and the routers of all sites, in this process."""

    def __init__(self):
        self.books = []
        self.version = Call(lambda: 0)
        self.put = Call(lambda site, book: self.books.append((site, book)))

    def broadcast(self, method, book):
        """Routers that take every book; its replicas' answers come by ``results_async``."""
        assert method == "set_plans"
        self.held = [book.version]
        return self

    async def results_async(self, timeout_s):
        """The versions they hold."""
        return self.held

    def of(self, site):
        """The books of a site."""
        return [book for name, book in self.books if name == site]

    async def until(self, site, count):
        """Wait for so many books more of a site; returns the last."""
        target = len(self.of(site)) + count
        for _ in range(1_000):
            if len(self.of(site)) >= target:
                return self.of(site)[-1]
            await asyncio.sleep(PERIOD_S)
        raise AssertionError(f"expected {target} books of {site}, got {len(self.of(site))}")


@pytest.fixture
def cluster(monkeypatch):
    """What the scheduler talks to."""
    cluster = Cluster()
    monkeypatch.setattr(module, "open_store", lambda: cluster)
    monkeypatch.setattr(module, "DeploymentHandle", lambda *names: cluster)
    return cluster


@pytest.fixture
async def start(cluster):
    """Starts a scheduler; it ends with the test."""
    started = []

    def start(**args):
        started.append(Scheduler(SchedulerArgs(period_s=PERIOD_S, **args)))
        return started[-1]

    yield start
    for scheduler in started:
        if scheduler._loop is not None:
            scheduler._loop.cancel()


@pytest.fixture
def folder(bundle, make_policy, tmp_path):
    """The small bundle with a policy."""
    bundle.with_policy(make_policy(bundle)).save(tmp_path / "bundle")
    return str(tmp_path / "bundle")


async def test_every_site_that_reports_gets_plans_of_rising_versions(
    cluster, start, folder, make_record
):
    """For every class; versions are counted over all sites, and each decision is recorded."""
    scheduler = start(bundle=folder)
    for site in ("site-1", "site-2"):
        await scheduler.report(site, [make_record()])
        await cluster.until(site, 2)
    versions = [book.version for _, book in cluster.books]
    assert versions == list(range(1, len(versions) + 1))
    names = {slo.name for slo in SLO_CLASSES}
    assert all(set(book.plans) == names for _, book in cluster.books)
    start_entry, *entries = await scheduler.recent_entries()
    assert (start_entry["kind"], start_entry["bundle"]) == ("start", folder)
    for entry, (site, book) in zip(entries, cluster.books, strict=False):
        assert (entry["site"], entry["version"]) == (site, book.version)
        plans = {name: plan["partition"] for name, plan in entry["plans"].items()}
        assert plans == {name: plan.partition for name, plan in book.plans.items()}


async def test_records_that_are_no_numbers_stop_neither_site(
    cluster, start, folder, caplog, make_record
):
    """The site is without new plans for that period alone, and others go on."""
    scheduler = start(bundle=folder)
    await scheduler.report("site-1", [make_record()])
    await scheduler.report("site-2", [make_record()])
    await cluster.until("site-1", 1)
    with caplog.at_level(logging.ERROR, "ray.serve"), np.errstate(all="ignore"):
        await scheduler.report("site-1", [make_record(edge_ms=float("nan"))])
        await cluster.until("site-2", 3)
    assert caplog.text.count("no new plans for site-1") == 1
    await cluster.until("site-1", 2)


async def test_a_policy_that_fails_is_stood_in_for(
    cluster, start, folder, monkeypatch, make_record
):
    """The plans keep coming, by least latency; when it works again, it decides again."""
    scheduler = start(bundle=folder)
    name = scheduler._decider.name
    with monkeypatch.context() as patch:
        patch.setattr(scheduler._decider.learned, "logits", lambda features: features[:0])
        await scheduler.report("site-1", [make_record()])
        await cluster.until("site-1", 2)
        entry = (await scheduler.recent_entries())[-1]
        assert {plan["policy"] for plan in entry["plans"].values()} == {"least_latency"}
    await cluster.until("site-1", 3)
    entry = (await scheduler.recent_entries())[-1]
    assert {plan["policy"] for plan in entry["plans"].values()} == {name}


async def test_without_a_learned_policy_nothing_is_learned(start, bundle_folder, caplog):
    """No trainer is started, and the log says why."""
    scheduler = start(bundle=str(bundle_folder), learn=True)
    assert scheduler._learning is None
    assert "nothing is learned" in caplog.text
