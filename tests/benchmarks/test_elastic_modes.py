import numpy as np
import pytest
import torch

from benchmarks.elastic_modes import Ran, execute, judge
from xpi_ray.elastic.facts import ElasticFacts
from xpi_ray.elastic.guide import Costs
from xpi_ray.elastic.stop_times import StopTimes

COSTS = Costs(np.array([1.0, 2.0]), np.array([1.0, 1.0]))


def test_modes_are_judged_by_what_is_in_hand_at_the_stop():
    """Exits end at 2 and 5 ms; stops before 10 ms find none, the first, or the second."""
    correct = np.array([[True, False], [False, True]])
    modes = {"both": Ran([[0, 1], [0, 1]], correct), "first": Ran([[0], [0]], correct)}
    both, first = judge(modes, COSTS, StopTimes.uniform(10))
    assert both["accuracy"] == pytest.approx((0.3 + 0.5) / 2)
    assert both["answered"] == first["answered"] == pytest.approx(0.8)
    assert first["accuracy"] == pytest.approx(0.8 / 2)
    assert (both["edge_ms"], first["edge_ms"]) == (5, 2)
    assert (both["exits"], first["exits"]) == (2, 1)


def test_plans_are_truly_run(network):
    """What an exit says is what the network says there with these exits skipped, and no others."""
    torch.manual_seed(0)
    images = torch.randint(256, (40, 3, *network.image_size), dtype=torch.uint8)
    labels = torch.randint(network.num_classes, (40,))
    facts = ElasticFacts.fit(network, images, labels)
    costs = facts.costs([1.0] * network.num_blocks)
    ran = execute(network, images.split(1), labels, facts, costs, StopTimes.uniform(6.0))
    assert any(0 < len(run) < network.num_blocks for run in ran.runs)
    for image, label, run, right in zip(images, labels, *ran, strict=True):
        state = network.start(image[None])
        assert list(run) == sorted(set(run))
        for block in range(1, network.num_blocks + 1):
            if block - 1 in run:
                state = network.advance(state, block)
                assert right[block - 1] == (state.logits.argmax() == label)
            else:
                assert not right[block - 1]
                state = network.skip_exit(state, block)
