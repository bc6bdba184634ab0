"""Makes Xpi's bundles without one of their parts, for the ablation.

    python -m benchmarks.ablated [--datasets …]

    packaged bundle ─► without_learned_compression, … ─► runs/peers/<dataset>/…

The network stays as it is, and the learned policy too, but for the plans that it chooses from.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

from benchmarks.systems import DATASETS, without
from xpi_ray.bundle import Bundle
from xpi_ray.compression.ladder import LAYERS, Ladder
from xpi_ray.policies.learned import from_bytes, to_bytes, worth_keeping


def main() -> None:
    """Make and save them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS), choices=DATASETS)
    options = parser.parse_args()
    for dataset in options.datasets:
        whole = Bundle.load(dataset)
        for part, make in MADE.items():
            folder = without(part, dataset).folder
            make(whole).save(folder)
            print(folder)


def without_learned_compression(bundle: Bundle) -> Bundle:
    """Levels that send latents are left out."""
    network, outcomes, manifest = bundle.network, bundle.outcomes, bundle.manifest
    arrays = bundle.ladder.to_arrays()
    layered = {name: each for name, each in arrays.items() if not name.startswith("learned")}
    shapes = {p: network.carry_shape(p) for p in range(1, network.num_blocks)}
    plan = manifest.static_plan
    plan = plan.model_copy(update={"level": min(plan.level, LAYERS - 1)})
    changed = replace(
        bundle,
        manifest=manifest.model_copy(update={"static_plan": plan}),
        ladder=Ladder.from_arrays(layered, shapes),
        outcomes=outcomes._replace(
            resumed_entropy=outcomes.resumed_entropy[:LAYERS],
            resumed_correct=outcomes.resumed_correct[:LAYERS],
            frame_bytes=outcomes.frame_bytes[:LAYERS],
        ),
    )
    return _with_policy_of(bundle, changed)


def without_images(bundle: Bundle) -> Bundle:
    """No plan sends the image after exits at the edge."""
    return _with_policy_of(bundle, bundle, images=False)


def without_early_exit(bundle: Bundle) -> Bundle:
    """No exit but the last is ever sure enough."""
    manifest = bundle.manifest
    never = (0.0,) * bundle.network.num_blocks
    strict = [each.model_copy(update={"thresholds": never}) for each in manifest.calibrations]
    plan = manifest.static_plan.model_copy(update={"thresholds": never})
    changes = {"calibrations": tuple(strict), "static_plan": plan}
    changed = replace(bundle, manifest=manifest.model_copy(update=changes))
    return _with_policy_of(bundle, changed)


def _with_policy_of(whole: Bundle, changed: Bundle, images: bool = True) -> Bundle:
    """The same learned policy, on the plans that are left, with those that send images or not."""
    if whole.policy is None:
        return changed
    profile = whole.manifest.profiles["default"]
    policy = from_bytes(whole.policy, profile, whole.candidates())
    weights = policy.viewer.weights
    plans = changed.candidates()
    left = [index for index, each in enumerate(plans) if images or not each.sends_image]
    kept = worth_keeping(profile, [plans[index] for index in left], weights)
    return changed.with_policy(to_bytes(policy.layers, [left[each] for each in kept], weights))


MADE: dict[str, Callable[[Bundle], Bundle]] = {
    "learned_compression": without_learned_compression,
    "images": without_images,
    "early_exit": without_early_exit,
}


if __name__ == "__main__":
    main()
