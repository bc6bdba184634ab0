import numpy as np
import pytest
import torch

from xpi_ray.elastic.facts import ElasticFacts
from xpi_ray.elastic.predictor import MaskedPerceptron
from xpi_ray.elastic.stop_times import StopTimes
from xpi_ray.inference.elastic import ElasticRun
from xpi_ray.inference.pace import Pace


@pytest.fixture
def make_run(network, elastic_facts, images):
    """Begins a request on the small network, of blocks that are thought to take 1 ms each."""

    def make(stops=None, facts=elastic_facts, image=0):
        return ElasticRun(network, facts, Pace([1.0] * 4), images[image].numpy(), stops)

    return make


def finish(run):
    while run.step():
        pass
    return run


def test_exits_come_with_what_the_network_says(make_run, network, images):
    """Where no exit is skipped, each says what a run of the whole network says."""
    run = finish(make_run(StopTimes.uniform(1e6)))
    expected = dict(zip(network.exits, network(images[:1]), strict=True))
    if [part.answer.exit for part in run.exits] == list(network.exits):
        for part in run.exits:
            assert np.allclose(part.answer.logits, expected[part.answer.exit][0], atol=1e-5)
    assert run.exits


def test_what_runs_is_told(make_run):
    """Exits rise, so do their times; the end tells the blocks that ran."""
    run = finish(make_run())
    exits = [part.answer.exit for part in run.exits]
    assert exits == sorted(set(exits))
    times = [part.elapsed_ms for part in run.exits]
    assert times == sorted(times)
    assert all(0 <= part.confidence <= 1 for part in run.exits)
    assert run.end.is_complete
    assert run.end.blocks == exits[-1]
    assert run.expected_ms == 0


def test_a_stopped_run_runs_no_further_block(make_run):
    """After a stop nothing runs, what ran stays, and the end says that it was stopped."""
    run = make_run(StopTimes.uniform(1e6))
    assert run.step()
    held = list(run.exits)
    run.stop()
    assert not run.step()
    assert run.expected_ms == 0
    assert run.exits == held
    assert not run.end.is_complete
    assert run.end.blocks == 1


def test_an_exit_that_takes_too_long_is_skipped(network, elastic_facts, images):
    """An exit that nobody lives to see is not run; the network goes on behind it."""
    share = elastic_facts.exit_share.copy()
    share[1] = 0.999999  # of a block that takes for ever with its exit
    facts = elastic_facts._replace(exit_share=share, predictor=hopeful(4))
    pace = Pace([1.0, 1e7, 1.0, 1.0])
    run = finish(ElasticRun(network, facts, pace, images[0].numpy(), StopTimes.uniform(1000.0)))
    assert 2 not in [part.answer.exit for part in run.exits]
    assert run.end.blocks == 4


def hopeful(blocks):
    """Expects later exits to be surer, whatever was seen."""
    zero = np.zeros((1, 2 * blocks), np.float32)
    bias = np.linspace(0, 5, blocks).astype(np.float32)
    return MaskedPerceptron(zero, np.zeros(1, np.float32), np.zeros((blocks, 1), np.float32), bias)


def test_facts_survive_as_arrays(network, elastic_facts):
    """What a bundle keeps makes the same facts again."""
    arrays = elastic_facts.to_arrays()
    again = ElasticFacts.from_arrays(arrays, network.exits, network.num_blocks)
    for name, array in again.to_arrays().items():
        assert np.array_equal(array, arrays[name], equal_nan=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("exit_share", np.array([0.1, 0.1, 0.1], "f")),
        ("exit_share", np.array([0.1, 0.1, 0.1, 1.5], "f")),
        ("temperature", np.array([1, 1, 0, 1], "f")),
        ("temperature", np.array([1, 1, np.nan, 1], "f")),
        ("predictor_bias", np.zeros(3, "f")),
    ],
)
def test_facts_of_another_network_are_refused(network, elastic_facts, name, value):
    """Arrays of another length, or with values that cannot be, are refused."""
    arrays = {**elastic_facts.to_arrays(), name: value}
    with pytest.raises(ValueError, match="expected"):
        ElasticFacts.from_arrays(arrays, network.exits, network.num_blocks)


def test_blocks_without_an_exit_are_never_planned(plain_network, images):
    """On a network where only blocks 2 and 4 have exits, no other one answers."""
    labels = torch.arange(len(images)) % 5
    facts = ElasticFacts.fit(plain_network, images, labels)
    assert np.isnan(facts.temperature[[0, 2]]).all()
    pace = Pace([1.0] * 4)
    run = finish(ElasticRun(plain_network, facts, pace, images[0].numpy(), StopTimes.uniform(1e6)))
    assert {part.answer.exit for part in run.exits} <= {2, 4}
    assert run.exits
