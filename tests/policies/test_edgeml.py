import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from xpi_ray.errors import PlanError
from xpi_ray.policies.edgeml import (
    BOUND,
    POWER_OF_ALL,
    STATE,
    EdgeML,
    Recent,
    act,
    decision_of,
    from_bytes,
    to_bytes,
)
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import Plan, SloClass

EXITS, BLOCKS = [2, 3, 4], 4
SLO = SloClass(name="any", deadline_ms=50)


def layers(seed=0, outputs=3):
    """An actor of random layers."""
    rng = np.random.default_rng(seed)
    widths = (STATE, 8, outputs)
    return [
        (rng.normal(size=(b, a)).astype("f"), rng.normal(size=b).astype("f"))
        for a, b in itertools.pairwise(widths)
    ]


@pytest.fixture
def file():
    """A policy's file."""
    return to_bytes(layers(), EXITS, BLOCKS)


def test_a_state_is_the_mean_of_the_last_three_periods(edge):
    """The same observation once more counts nothing; units are those of the classes."""
    recent = Recent(edge)
    with pytest.raises(ValueError, match="period"):
        recent.state(50)
    for number in range(5):
        seen = Observation(
            link_bps=1e6 * (number + 1),
            surety=number / 10,
            latency_ms=10.0 * number,
            edge_utilisation=0.28 * number,
            arrivals_rps=10.0,
        )
        recent.see(seen)
        recent.see(seen)
    expected = [np.log(4), 0.3, 30 / 50, 3 * POWER_OF_ALL]  # 28 ms of work is all blocks once
    assert recent.state(50) == pytest.approx(expected, rel=1e-5)
    assert recent.state(100)[2] == pytest.approx(0.3)


@given(
    link_bps=st.floats(1e-3, 1e15),
    latency_ms=st.floats(0, 1e9),
    utilisation=st.floats(0, 1e6),
    arrivals_rps=st.floats(0, 1e6),
)
def test_states_are_bounded(edge, link_bps, latency_ms, utilisation, arrivals_rps):
    """Whatever was seen; without requests no power is told of."""
    recent = Recent(edge)
    recent.see(
        Observation(
            link_bps=link_bps,
            latency_ms=latency_ms,
            edge_utilisation=utilisation,
            arrivals_rps=arrivals_rps,
        )
    )
    state = recent.state(20)
    assert state.shape == (STATE,)
    assert (np.abs(state) <= BOUND).all()
    assert state[3] == 0 or arrivals_rps


def test_actions_are_those_of_a_plain_perceptron():
    """Two layers, ReLU between them, the logistic function of twice the outcome."""
    (first, start), (second, offset) = layers()
    state = np.array([0.5, -1.0, 2.0, 0.1], "f")
    hidden = [max(float(row @ state + bias), 0.0) for row, bias in zip(first, start, strict=True)]
    said = second @ np.array(hidden) + offset
    assert act(layers(), state) == pytest.approx(1 / (1 + np.exp(-2 * said)), rel=1e-4)
    assert act(layers(), np.stack([state, state])).shape == (2, 3)


@given(actions=st.tuples(*[st.floats(0, 1, width=32)] * 3), least=st.integers(0, BLOCKS))
def test_actions_make_plans_that_fit(actions, least):
    """Thresholds stand at the exits before the last; all partitions from the least on come up."""
    decision = decision_of(np.array(actions, "f"), EXITS, BLOCKS, least)
    Plan(version=0, **decision._asdict()).check(BLOCKS, 1)
    assert least <= decision.partition
    assert decision.thresholds[0] == decision.thresholds[3] == 0
    expected = [action**4 for action in actions[:2]]
    assert decision.thresholds[1:3] == pytest.approx(expected, abs=6e-5)


def test_every_partition_has_its_share_of_an_action():
    """0 to N, evenly."""
    actions = np.linspace(0, 1, 1001, dtype="f")
    found = [decision_of(np.array([0, 0, a], "f"), EXITS, BLOCKS, 0).partition for a in actions]
    assert np.bincount(found).tolist() == pytest.approx([200] * 5, abs=1)


def test_a_file_decides_as_what_it_was_written_from(file, edge, make_sparse):
    """Also over several periods, as it remembers them."""
    read = from_bytes(file, edge, make_sparse(0), 1)
    made = EdgeML(edge, EXITS, BLOCKS, layers(), 1)
    for number in range(6):
        seen = Observation(link_bps=10.0 ** (4 + number), arrivals_rps=3, edge_utilisation=0.3)
        decision = made.decide(seen, SLO)
        assert read.decide(seen, SLO) == decision
        assert decision.partition >= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edgeml": np.array([9])}, "version 9"),
        ({"edgeml": np.array([])}, "no file"),
        ({"exits": np.array([1, 4])}, r"exits \[1, 4\] of 4 blocks.*\[2, 3, 4\]"),
        ({"blocks": np.array([5])}, "of 5 blocks"),
        ({"biases1": np.zeros(9, "f")}, "shape"),
        ({"biases1": np.full(3, np.inf, "f")}, "no numbers"),
    ],
)
def test_a_file_of_something_else_is_refused(file, edge, make_sparse, changes, message):
    """The error says what is wrong with it."""
    with pytest.raises(PlanError, match=message):
        from_bytes(save({**load(file), **changes}), edge, make_sparse(0))


def test_what_is_no_policy_is_refused(edge, make_sparse):
    """Neither other tensors nor other bytes."""
    for data in (b"", b"none", save({"edgeml": np.array([1])})):
        with pytest.raises(PlanError, match="xpi train-edgeml"):
            from_bytes(data, edge, make_sparse(0))
