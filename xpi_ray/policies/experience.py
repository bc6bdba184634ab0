"""What live decisions were worth: experience that the learned policy goes on learning from.

    view ─► pick ─► plan of a version ─► its requests' records ─► Ledger ─► Experience ─► trainer

A label tells a simulator whether an answer was right. Live there is none, and the chance that an
exit so sure is right stands in for it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xpi_ray.errors import PlanError
from xpi_ray.policies.learned import GAP, SHARPNESS, Learned, View
from xpi_ray.policies.utility import Weights
from xpi_ray.profiles.surety import Surety
from xpi_ray.telemetry.records import RequestRecord

NEAR = 0.03  # utility that a plan may lack to the best, by forecast, and be tried
BARRED = 30.0  # taken off a logit, so that its plan is not tried
ANSWERED = ("complete", "best_effort")


class Pick(NamedTuple):
    """One choice from the shortlist, and what it was made from."""

    features: NDArray[np.float32]
    """(FEATURES,)."""
    allowed: NDArray[np.bool_]
    """What could have been chosen, (SHORTLIST,)."""
    logits: NDArray[np.float32]
    """With those barred that were not allowed, (SHORTLIST,)."""
    action: int
    """The place that was chosen."""
    expected: float
    """What the forecast holds the best plan for. Not the chosen one: a reward less what was
    expected of that very plan would call every plan good that keeps its word."""


class Experience(NamedTuple):
    """A choice and what came of it."""

    pick: Pick
    reward: float
    """``SHARPNESS`` times what its requests were worth beyond the forecast of the best plan."""


def pick(policy: Learned, view: View, chance: np.random.Generator | None = None) -> Pick:
    """Choose a place of the shortlist.

    Args:
        policy: What prefers.
        view: What it is shown.
        chance: None takes the place that is preferred. Else one is drawn by the policy's own
            probabilities, from it and those that the forecast holds for nearly as good as the best.

    Raises:
        PlanError: The policy does not come to numbers.
    """
    logits = policy.logits(view.features)
    if not np.isfinite(logits).all():
        raise PlanError(f"the policy says {logits.tolist()}, which are no numbers; train it anew")
    best = int(logits.argmax())
    allowed = np.arange(len(logits)) == best
    if chance is not None:
        allowed |= view.features[GAP] >= -SHARPNESS * NEAR
    logits = (logits - BARRED * ~allowed).astype(np.float32)
    if chance is None:
        return Pick(view.features, allowed, logits, best, view.best)
    likely = np.where(allowed, np.exp(logits.astype(np.float64) - logits.max()), 0.0)
    drawn = np.searchsorted(likely.cumsum(), chance.random() * likely.sum(), side="right")
    return Pick(view.features, allowed, logits, int(drawn), view.best)


def worth(record: RequestRecord, weights: Weights, surety: Surety) -> float:
    """The utility of a request whose label nobody knows.

    Raises:
        IndexError: It was answered by an exit or level that the outcomes do not have.
    """
    in_time = record.status in ANSWERED and record.exit > 0 and record.budget_left_ms >= 0
    right = 0.0
    if in_time:
        crossed = record.tier == "cloud" and record.cloud_from > 0  # an image loses nothing
        link = (record.level, record.partition) if crossed else None
        right = surety.likely_right(record.exit, record.entropy, link)
    return float(weights.utility(in_time, right, record.edge_ms + record.encode_ms))


class _Open:
    """A choice whose requests are still coming in."""

    def __init__(self, chosen: Pick) -> None:
        self.chosen = chosen
        self.age = 0
        self.worths: list[float] = []


class Ledger:
    """Waits until the requests of a decision have told what it was worth; one for each site.

    Args:
        weights: What counts.
        surety: Of the bundle's exits.
        patience: Periods until a decision is settled by what has come in.
    """

    def __init__(self, weights: Weights, surety: Surety, patience: int) -> None:
        self._weights = weights
        self._surety = surety
        self._patience = patience
        self._open: dict[tuple[int, str], _Open] = {}

    def enter(self, version: int, slo_class: str, chosen: Pick) -> None:
        """Note a choice.

        Args:
            version: Of the plan that came of it; requests tell theirs.
            slo_class: Name of the class.
            chosen: The choice.
        """
        self._open[version, slo_class] = _Open(chosen)

    def settle(self, records: Sequence[RequestRecord]) -> list[Experience]:
        """Take in one period's records; returns what became of decisions that are old enough.

        Decisions that no request went by teach nothing.
        """
        for record in records:
            entry = self._open.get((record.plan_version, record.slo_class))
            if entry is not None:
                entry.worths.append(worth(record, self._weights, self._surety))
        for entry in self._open.values():
            entry.age += 1
        old = [key for key, entry in self._open.items() if entry.age > self._patience]
        closed = [self._open.pop(key) for key in old]
        return [
            Experience(chosen, SHARPNESS * (float(np.mean(worths)) - chosen.expected))
            for chosen, worths in ((entry.chosen, entry.worths) for entry in closed)
            if worths
        ]
