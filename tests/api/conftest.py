"""A small served model, and answers of it."""

from collections.abc import Callable

import numpy as np
import pytest

from xpi_ray.api.handlers import Handlers
from xpi_ray.api.schema import ModelFacts
from xpi_ray.inference.answer import Answer, ExitAnswer, Stages, Status, Tier


@pytest.fixture(scope="session")
def facts() -> ModelFacts:
    """Three classes, one of them outside ASCII; images higher than wide."""
    return ModelFacts(
        name="toy",
        version="7",
        labels=("cat", "dog", "pingüino"),
        image_shape=(3, 5, 4),
        num_blocks=2,
    )


@pytest.fixture(scope="session")
def handlers(facts: ModelFacts) -> Handlers:
    """Default deadline 1000 ms, at most 5000 ms."""
    return Handlers(facts, default_deadline_ms=1000.0, maximum_deadline_ms=5000.0)


@pytest.fixture(scope="session")
def make_answer() -> Callable[..., Answer]:
    """Makes an answer of two exits, the last with the given logits."""

    def make(logits: list[float], status: Status = Status.COMPLETE, left_ms: float = 12.3456):
        return Answer(
            exits=[
                ExitAnswer(1, Tier.EDGE, np.array([1, 0, 0], np.float32), 0.91234567),
                ExitAnswer(2, Tier.CLOUD, np.array(logits, np.float32), 0.1),
            ],
            status=status,
            partition=1,
            level=3,
            plan_version=17,
            frame_bytes=420,
            deadline_ms=100.0,
            budget_left_ms=left_ms,
            stages=Stages(edge_ms=1.23456, total_ms=9.0),
        )

    return make
