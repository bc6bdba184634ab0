"""From a trained network to a bundle: measure it, calibrate it, choose its static plan.

network, validation split ─► outcomes, profile, thresholds, plan ─► Bundle
"""

import copy
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from xpi_ray.bundle import Bundle, Calibration, Manifest, NetworkEntry, Preprocessing
from xpi_ray.exits.calibration import calibrate
from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.policies.plan import Plan
from xpi_ray.profiles.measure import (
    Track,
    count_macs,
    measure_outcomes,
    measure_profile,
    silent,
)
from xpi_ray.training.data import Splits

TOLERANCES = (0.005, 0.02, 0.05)
STATIC_LEVEL = 1  # 8 bits, which cost no accuracy that can be measured
RESUMED = 1_000  # validation images that cross every link


def pack(
    network: XpiNetwork,
    splits: Splits,
    version: str,
    track: Track = silent,
    centres: Mapping[str, Tensor] | None = None,
) -> Bundle:
    """Make a bundle of a trained network and its centres; the network itself is left as it is.

    The static plan splits the network in the middle, so that edge and cloud share the work and an
    exit is in hand before anything crosses the link.
    """
    serving = copy.deepcopy(network).prepare()
    validation = splits.validation
    macs = count_macs(serving)
    outcomes = measure_outcomes(serving, validation.images, validation.labels, RESUMED, track)
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
        name=splits.name,
        version=version,
        description=f"Xpi network of {network.num_blocks} blocks, trained on {splits.name}",
        network=NetworkEntry(kind=network.kind, spec=network.spec.model_dump(mode="json")),
        labels=splits.classes,
        preprocessing=Preprocessing(size=network.image_size),
        macs=tuple(macs),
        profiles={"default": measure_profile(serving, validation.images, STATIC_LEVEL)},
        calibrations=tuple(calibrations),
        static_plan=Plan(
            version=0,
            partition=network.num_blocks // 2,
            thresholds=calibrations[0].thresholds,
            level=STATIC_LEVEL,
        ),
    )
    return Bundle(manifest, network, outcomes, centres or {})
