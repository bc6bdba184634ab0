from itertools import count

import pytest

from benchmarks import edge_facts

BLOCKS_CPU_MS, OVERHEAD_MS = 12.0, 20.0
BLOCKS_MS = edge_facts.FULL_NETWORK_MS


class Rig:
    """Stands in for one: an edge whose blocks take 12 ms of a whole core, one after the other."""

    def __init__(self):
        self._used_ms = count(0.0, 50.0)
        self.deployed = []
        self.cores = 1.0

    @property
    def used_ms(self):
        """50 ms more each time."""
        return next(self._used_ms)

    def deploy(self, system, edge, cores):
        """Remember it."""
        self.deployed.append(system.name)
        self.weaken(cores)

    def weaken(self, cores):
        """Blocks take longer from now on."""
        self.cores = cores

    def gauge_ms(self, dataset, cores):
        """Blocks alone."""
        return BLOCKS_CPU_MS / cores

    def ask(self, dataset, times_s):
        """Records of what was asked; in the cloud a call takes 30 ms."""
        records, free_s, blocks_ms = [], 0.0, BLOCKS_CPU_MS / self.cores
        for due_s in times_s:
            free_s = max(free_s, due_s) + (blocks_ms + OVERHEAD_MS) / 1000
            stages = dict.fromkeys(edge_facts.OWN, 0.0)
            if self.deployed == ["whole_at_edge"]:
                stages |= {"edge_ms": blocks_ms, "edge_wait_ms": OVERHEAD_MS}
            else:
                stages |= {"link_ms": 12.0, "cloud_ms": 18.0}
            stages["total_ms"] = sum(stages.values()) + 1.0
            done_s = free_s + 0.003
            records.append({"due_s": due_s, "done_s": done_s, "answer": {"stages": stages}})
        return records


def test_facts_are_told_apart(monkeypatch):
    """Blocks, what else keeps the edge busy, router, HTTP, and the way to the cloud."""
    monkeypatch.setattr(edge_facts.time, "sleep", lambda seconds: None)
    rig = Rig()
    found = edge_facts.measure(rig, "cifar10")
    assert rig.deployed == ["whole_at_edge", "whole_at_cloud"]
    assert found.cores == rig.cores == BLOCKS_CPU_MS / BLOCKS_MS
    assert found.full_network_ms == BLOCKS_MS
    assert found.holds_rps == pytest.approx(1000 / (BLOCKS_MS + OVERHEAD_MS), rel=1e-3)
    assert found.work_ms == pytest.approx(OVERHEAD_MS)
    assert found.request_cpu_ms == pytest.approx(50 / edge_facts.BURST, rel=1e-3)
    assert found.router_ms == pytest.approx(1.0)
    assert found.http_ms == pytest.approx(2.0, abs=0.01)
    assert found.hop_ms == pytest.approx(2.0)
    assert found.slowdown / found.cloud_slowdown == pytest.approx(BLOCKS_MS / 18.0, rel=1e-3)
    assert found.as_told().round_trip_ms == pytest.approx(12.0)
    assert found.gauge_ms == BLOCKS_MS


@pytest.mark.parametrize(("slower", "cores"), [(1.0, 0.1), (1.5, 0.15), (0.5, 0.05), (20.0, 1.0)])
def test_a_slower_machine_gives_the_edge_more_of_a_core(slower, cores):
    """So that it is as weak as before; it cannot have more than one."""
    facts = edge_facts.EdgeFacts(*(0.1,) * 12, gauge_ms=150.0)
    assert facts.cores_now(slower * 150.0) == pytest.approx(cores)
