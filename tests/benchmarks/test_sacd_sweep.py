import pytest

from benchmarks import plots, sacd_sweep, sacd_tables
from rl.sacd.agents import AgentConfig
from rl.sacd.alexnet import EXITS, LAYERS
from rl.sacd.costs import ACTIONS, BITS, Cost, Costs
from rl.sacd.environment import FEATURES
from rl.sacd.reward import LEAST_BPS, MOST_BPS, Model
from rl.sacd.sac import SacD


@pytest.fixture(scope="module")
def model():
    """Layers that all take as long, and carries that shrink."""
    rows = []
    for exit_, layers in zip(EXITS, LAYERS, strict=True):
        accuracy = 0.7 + exit_ / 20
        rows.append(Cost(exit_, layers, 0, layers, 0, 0, 0, 0, 0, accuracy))
        for partition in range(layers):
            for bits in BITS:
                figures = partition, layers - partition, 0.1, 0.1, 4000, 100 * bits, accuracy
                rows.append(Cost(exit_, partition, bits, *figures))
    return Model(Costs(tuple(rows)))


def test_choices_cover_the_sweep(model):
    """Each policy and seed has one at every bandwidth, and none earns more than the best."""
    found = sacd_sweep.choices(model, [0, 1], 40)
    assert len(found) == (2 + 2 * 2) * len(sacd_sweep.SWEEP_BPS)
    best = {bps: model.outcomes(bps).of(a).reward for p, _, bps, a in found if p == "best"}
    assert min(best) == LEAST_BPS
    assert max(best) == MOST_BPS
    for _, _, bps, action in found:
        assert model.outcomes(bps).of(action).reward <= best[bps]


def test_an_agent_sees_every_bandwidth_of_the_sweep(model):
    """In rising order, ten times each, and its last choice there counts."""
    seen = []

    class Watching(SacD):
        def act(self, state):
            seen.append(float(state[3]))
            return len(seen) % len(ACTIONS)

    found = sacd_sweep.settled(Watching(FEATURES, len(ACTIONS), AgentConfig()), model)
    rates = [(bps / MOST_BPS) ** 0.5 for bps in sacd_sweep.SWEEP_BPS]
    assert seen == pytest.approx([rate for rate in rates for _ in range(sacd_sweep.SETTLED)])
    assert found[:2] == [sacd_sweep.SETTLED, 2 * sacd_sweep.SETTLED]


@pytest.fixture
def rows():
    """Two bandwidths, three policies, two seeds of one of them."""
    return [
        {
            "policy": policy,
            "seed": seed,
            "bandwidth_bps": bps,
            "latency_ms": latency,
            "accuracy": 0.8,
            "exit": 1,
            "partition": 9 if policy == "on_device" else 0,
            "bits": 0 if policy == "on_device" else 8,
            "reward": reward,
        }
        for bps in (8e4, 8e7)
        for policy, seed, latency, reward in (
            ("best", 0, 2.0, 0.8),
            ("on_device", 0, 10.0, 0.1),
            ("sacd", 0, 2.0, 0.8),
            ("sacd", 1, 3.0, 0.6),
        )
    ]


def test_the_tables_tell_figures_and_choices(rows):
    """Means over seeds; each one's speed relative to the device at the highest bandwidth."""
    head, first, last = sacd_tables.sacd_sweep(rows)
    assert head == ["MB/s", "`best`", "`on_device`", "`sacd`"]
    assert first[0] == "0.01"
    assert last[1:] == [
        "2.00 ms, 80.0%; exit 1, after 0, 8 bits",
        "10.00 ms, 80.0%; exit 1, after 9",
        "2.50 ms, 80.0%; exit 1, after 0, 8 bits",
    ]
    summary = sacd_tables.sacd_summary(rows)[3]
    assert summary[:4] == ["`sacd`", "2", "0.7000 ± 0.1414", "87.5%"]
    assert summary[-1] == "5.0 x, 3.3 x"


def test_the_picture_has_a_line_for_each_policy(rows):
    """In latency and accuracy; for each seed in exit, partition and bits, if it has a choice."""
    ((name, figure),) = plots.sacd_sweep(rows)
    assert name == "sacd_sweep"
    assert [len(axis.get_lines()) for axis in figure.axes] == [3, 3, 3, 3, 3]


def test_what_crosses_is_compared_with_exact_values():
    """Bytes relative to float32, accuracy relative to that of exact values."""
    key = {"exit": 3, "partition": 2, "layer": "ReLU", "exact_bytes": 4000}
    rows = [
        {**key, "bits": 4, "payload_bytes": 400, "accuracy": 0.85},
        {**key, "bits": 0, "payload_bytes": 0, "accuracy": 0.86},
    ]
    assert sacd_tables.sacd_costs(rows)[1] == ["2, ReLU", "4,000 B", "400 B (1/10.0), -1.00"]
