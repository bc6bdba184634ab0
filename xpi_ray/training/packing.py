"""From a trained network to a bundle: measure it, calibrate it, choose its static plan.

network, training images ─► codec ──┐
validation split ───────────────────┴► outcomes, profile, thresholds, plan, elastic ─► Bundle
"""

import copy
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xpi_ray.bundle import Bundle, Calibration, Manifest, NetworkEntry, Preprocessing
from xpi_ray.compression.builder import CodecName, fit_codec
from xpi_ray.compression.deepcod import DeepCod
from xpi_ray.compression.transform import Transform
from xpi_ray.elastic.facts import ElasticFacts
from xpi_ray.exits.calibration import calibrate
from xpi_ray.networks.bundled import BundledNetwork
from xpi_ray.networks.progressive import ProgressiveNetwork
from xpi_ray.policies.plan import Plan
from xpi_ray.profiles.measure import (
    Track,
    count_macs,
    measure_outcomes,
    measure_profile,
    silent,
)
from xpi_ray.profiles.outcomes import Outcomes
from xpi_ray.training.data import Splits

TOLERANCES = (0.005, 0.02, 0.05)
LEVEL_TOLERANCE = 0.0025  # share of accuracy that the static plan's level may cost
LADDER_IMAGES = 500  # of the training split, whose carries the codec is fitted to
RESUMED = 1_000  # validation images that cross every link


def pack(
    network: BundledNetwork,
    splits: Splits,
    version: str,
    track: Track = silent,
    centres: Mapping[str, Tensor] | None = None,
    transforms: Mapping[int, Transform] | None = None,
    codec: CodecName = "ladder",
    deepcods: Mapping[int, DeepCod] | None = None,
) -> Bundle:
    """Make a bundle of a trained network, which itself is left as it is.

    The static plan splits the network in the middle, so that edge and cloud share the work and an
    exit is in hand before anything crosses the link; or as near to it as the codec can.

    Args:
        network: As training left it.
        splits: Training images for the codec, validation for all else.
        version: Of the bundle.
        track: Shows progress.
        centres: What the training learnt to quantise carries with.
        transforms: By partition; with them a ladder has the learned levels too.
        codec: What is to code carries for the link.
        deepcods: By partition, for the codec of that name.

    Raises:
        CodecError: The codec is not to be had for this network.
    """
    serving = copy.deepcopy(network).prepare()
    validation = splits.validation
    macs = count_macs(serving)
    images = splits.train.images[:: _stride(splits)]
    known = carries(serving, images if codec == "ladder" else images[:1], track)
    ladder = fit_codec(codec, known, transforms, deepcods)
    outcomes = measure_outcomes(
        serving, ladder, validation.images, validation.labels, RESUMED, track
    )
    crossable = [partition for partition in known if ladder.levels_at(partition)]
    partition = min(crossable, key=lambda p: abs(p - network.num_blocks // 2), default=0)
    level = static_level(outcomes, partition)
    cost = np.array(macs, np.float64)
    calibrations = []
    for tolerance in TOLERANCES:
        found = calibrate(outcomes.entropy, outcomes.correct, cost, tolerance)
        calibrations.append(
            Calibration(
                tolerance=tolerance,
                thresholds=found.thresholds,
                accuracy=found.accuracy,
                mean_macs=found.mean_cost,
            )
        )
    manifest = Manifest(
        codec=codec,
        name=splits.name,
        version=version,
        description=(
            f"{network.kind.capitalize()} network of {network.num_blocks} blocks with "
            f"{len(network.exits)} exits, trained on {splits.name}"
        ),
        network=NetworkEntry(kind=network.kind, spec=network.spec.model_dump(mode="json")),
        labels=splits.classes,
        preprocessing=Preprocessing(size=network.image_size),
        macs=tuple(macs),
        profiles={"default": measure_profile(serving, ladder, validation.images, level)},
        calibrations=tuple(calibrations),
        static_plan=Plan(
            version=0,
            partition=partition,
            thresholds=calibrations[0].thresholds,
            level=level,
        ),
    )
    elastic = ElasticFacts.fit(serving, validation.images, validation.labels)
    return Bundle(manifest, network, ladder, outcomes, centres or {}, elastic=elastic)


@torch.inference_mode()
def carries(
    network: ProgressiveNetwork, images: Tensor, track: Track = silent
) -> dict[int, NDArray[np.float32]]:
    """Carries (n, C, h, w) of images after every block but the last."""
    found: dict[int, NDArray[np.float32]] = {}
    state = network.start(images)
    for block in track(range(1, network.num_blocks), "carries"):
        state = network.advance(state, block)
        found[block] = state.carry.contiguous().numpy()
    return found


def static_level(outcomes: Outcomes, partition: int) -> int:
    """The coarsest level that costs the last exit hardly any accuracy at a partition."""
    least = outcomes.correct[: outcomes.resumed_correct.shape[2], -1].mean() - LEVEL_TOLERANCE
    accuracy = outcomes.resumed_correct[:, partition, :, -1].mean(1)
    return max((level for level, found in enumerate(accuracy) if found >= least), default=0)


def _stride(splits: Splits) -> int:
    """Takes images from all over a split, whose order may be by class."""
    return max(1, len(splits.train.labels) // LADDER_IMAGES)
