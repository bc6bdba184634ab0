"""What a bundle knows of its network for requests without a deadline.

    network, held-out images ─► fit ─► ElasticFacts ─► elastic.safetensors
                                            └─► costs, confidence, predictor ─► Guide

Letters: N blocks.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xpi_ray.elastic.confidence import confidence, fit_temperatures
from xpi_ray.elastic.guide import Costs
from xpi_ray.elastic.measure import exit_logits, logits_with_skips, measure_costs
from xpi_ray.elastic.predictor import MaskedPerceptron
from xpi_ray.networks.progressive import ProgressiveNetwork


class ElasticFacts(NamedTuple):
    """Of one network; the machine's speed is not among them."""

    exit_share: NDArray[np.float32]
    """Of a block's time with its exit, what the exit takes, 0..1; NaN where there is none, (N,)."""
    temperature: NDArray[np.float32]
    """Of each exit, above 0; NaN where there is none, (N,)."""
    predictor: MaskedPerceptron

    @classmethod
    def fit(cls, network: ProgressiveNetwork, images: Tensor, labels: Tensor) -> "ElasticFacts":
        """Measure and learn.

        Args:
            network: Prepared for serving.
            images: Held out from training, uint8 (n, 3, H, W).
            labels: Theirs, (n,).
        """
        costs = measure_costs(network, images)
        exits = np.array(network.exits) - 1
        if network.fuses:
            logits, ran = logits_with_skips(network, images)
        else:
            logits, ran = exit_logits(network, images), None
        share, temperature = np.full((2, network.num_blocks), np.nan, np.float32)
        share[exits] = costs.exit_ms[exits] / (costs.block_ms + costs.exit_ms)[exits]
        temperature[exits] = fit_temperatures(logits, labels.numpy())
        sure = np.zeros((len(images), network.num_blocks), np.float32)
        sure[:, exits] = confidence(logits, temperature[exits])
        predictor = MaskedPerceptron.fit(sure, sure, np.isfinite(share), ran)
        return cls(share, temperature, predictor)

    def costs(self, block_ms: Sequence[float]) -> Costs:
        """On a machine where blocks with their exits take ``block_ms``, (N,)."""
        whole_ms = np.asarray(block_ms, np.float64)
        exit_ms = np.where(np.isfinite(self.exit_share), whole_ms * self.exit_share, np.inf)
        return Costs(whole_ms - np.where(np.isfinite(exit_ms), exit_ms, 0.0), exit_ms)

    def confidence(self, exit_: int, logits: NDArray[np.float32]) -> float:
        """How likely exit ``exit_``, 1..N, is right with these logits, (K,)."""
        return float(confidence(logits, self.temperature[exit_ - 1]))

    def to_arrays(self) -> dict[str, NDArray[np.float32]]:
        """The arrays by name."""
        own = {"exit_share": self.exit_share, "temperature": self.temperature}
        return own | {f"predictor_{k}": v for k, v in self.predictor.to_arrays().items()}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[np.generic]], exits: Sequence[int], blocks: int
    ) -> "ElasticFacts":
        """Undo ``to_arrays``.

        Args:
            arrays: As ``to_arrays`` gives them.
            exits: Numbers of the blocks that have one.
            blocks: N.

        Raises:
            KeyError: An array is missing.
            ValueError: One is of another network's form, or holds what cannot be.
        """
        share, temperature = (
            np.asarray(arrays[name], np.float32) for name in ("exit_share", "temperature")
        )
        there = np.isin(np.arange(1, blocks + 1), exits)
        for name, array, most in (("exit_share", share, 1.0), ("temperature", temperature, 1e3)):
            if array.shape != (blocks,) or not (np.isfinite(array) == there).all():
                raise ValueError(f"expected {name} of the exits {tuple(exits)}, got {array}")
            if not ((array[there] > 0) & (array[there] <= most)).all():
                raise ValueError(f"expected {name} above 0 and up to {most:g}, got {array}")
        own = {k.removeprefix("predictor_"): v for k, v in arrays.items() if "predictor_" in k}
        predictor = MaskedPerceptron.from_arrays(own)
        if len(predictor.bias) != blocks:
            raise ValueError(f"expected a predictor of {blocks} exits, got {len(predictor.bias)}")
        return cls(share, temperature, predictor)
