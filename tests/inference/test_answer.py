from dataclasses import asdict

import numpy as np
import pytest

from xpi_ray.inference.answer import Answer, ExitAnswer, Stages, Status, Tier

LOGITS = np.array([1, 2, 3], np.float32)


def make(*tiers, status=Status.COMPLETE):
    """Return an answer with an exit on each tier named, entropies falling by a tenth."""
    exits = [
        ExitAnswer(number, tier, LOGITS, 1 - number / 10)
        for number, tier in enumerate(tiers, start=1)
    ]
    stages = Stages(edge_ms=1.5, link_ms=2.5, total_ms=9.0)
    blocks = tiers.count(Tier.EDGE), tiers.count(Tier.CLOUD)
    return Answer(exits, status, 2, 1, 17, 420, 100.0, 91.0, stages, *blocks)


def test_the_last_exit_answers():
    """Of all that ran, the deepest is the best."""
    answer = make(Tier.EDGE, Tier.EDGE, Tier.CLOUD)
    assert answer.best is answer.exits[2]


def test_the_edges_last_exit_answers_where_it_is_surer():
    """The cloud said so; the record tells of that exit, and of all blocks that ran."""
    answer = make(Tier.EDGE, Tier.EDGE, Tier.CLOUD)
    answer.edge_is_surer = True
    assert answer.best is answer.exits[1]
    record = answer.record("r-1", "toy", "tight")
    assert (record.exit, record.tier, record.entropy) == (2, "edge", 0.8)
    assert (record.edge_blocks, record.cloud_blocks) == (2, 1)


@pytest.mark.parametrize(
    ("entropies", "best"), [((0.5, 0.2, 0.3), 1), ((0.2, 0.5, 0.2), 2), ((0.1, 0.2, 0.3), 0)]
)
def test_the_surest_exit_answers_where_that_is_asked_for(entropies, best):
    """Wherever it ran; of equally sure ones the last."""
    answer = make(Tier.EDGE, Tier.EDGE, Tier.CLOUD)
    answer.exits = [
        exit_._replace(entropy=entropy)
        for exit_, entropy in zip(answer.exits, entropies, strict=True)
    ]
    answer.answers = "surest"
    assert answer.best is answer.exits[best]
    assert answer.record("r-1", "toy", "tight").exit == best + 1


def test_a_record_counts_blocks_and_not_exits():
    """Some blocks have none."""
    answer = make(Tier.EDGE)
    answer.edge_blocks, answer.cloud_blocks = 5, 2
    record = answer.record("r-1", "toy", "tight")
    assert (record.exit, record.edge_blocks, record.cloud_blocks) == (1, 5, 2)


def test_a_record_tells_where_the_blocks_ran():
    """Blocks are counted by tier; exit, tier and entropy are those of the answer."""
    record = make(Tier.EDGE, Tier.EDGE, Tier.CLOUD).record("r-1", "toy", "tight")
    assert (record.request_id, record.model, record.slo_class) == ("r-1", "toy", "tight")
    assert (record.exit, record.tier, record.entropy) == (3, "cloud", 0.7)
    assert (record.edge_blocks, record.cloud_blocks) == (2, 1)
    assert (record.plan_version, record.partition, record.level) == (17, 2, 1)
    assert (record.frame_bytes, record.deadline_ms, record.budget_left_ms) == (420, 100.0, 91.0)
    assert record.status == "complete"


def test_a_record_has_every_stage():
    """Each time of the answer is in the record under the same name."""
    answer = make(Tier.EDGE, status=Status.BEST_EFFORT)
    record = answer.record("r-1", "toy", "tight")
    assert asdict(answer.stages).items() <= record.to_dict().items()
    assert (record.status, record.cloud_blocks) == ("best_effort", 0)
