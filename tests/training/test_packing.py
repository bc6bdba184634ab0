import numpy as np
import pytest
import torch

from xpi_ray.compression.ladder import LEVELS
from xpi_ray.exits.rule import first_sure_exit
from xpi_ray.training.packing import TOLERANCES, pack
from xpi_ray.training.trainer import exit_accuracies


def test_a_bundle_is_of_one_piece(bundle, splits, network):
    """Counts fit the network, labels the data set, and the plan splits it in the middle."""
    manifest = bundle.manifest
    assert (manifest.name, manifest.version, manifest.labels) == ("noise", "7", splits.classes)
    assert manifest.preprocessing.size == network.image_size
    assert len(manifest.macs) == len(manifest.profiles["default"].block_ms) == 4
    manifest.static_plan.check(4, LEVELS)
    assert (manifest.static_plan.version, manifest.static_plan.partition) == (0, 2)
    assert manifest.static_plan.thresholds == manifest.calibrations[0].thresholds


def test_calibrations_keep_their_word(bundle, splits, network):
    """Each loses no more than its tolerance, at the cost that it states; the strictest is first."""
    outcomes = bundle.outcomes
    assert [each.tolerance for each in bundle.manifest.calibrations] == list(TOLERANCES)
    last = exit_accuracies(network, splits.validation)[-1]
    for each in bundle.manifest.calibrations:
        exits = first_sure_exit(outcomes.entropy, np.array(each.thresholds))
        hits = outcomes.correct[np.arange(len(exits)), exits - 1]
        assert each.accuracy == pytest.approx(hits.mean())
        assert each.accuracy >= last - each.tolerance
        assert each.mean_macs == pytest.approx(
            np.mean([bundle.manifest.macs[exit_ - 1] for exit_ in exits])
        )


def test_packing_leaves_the_network_as_it_is(spec, make_network, splits):
    """The bundle holds the trained weights, not folded ones, and they did not change."""
    network = make_network(spec)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    packed = pack(network, splits, "1")
    after = packed.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_centres_are_packed_as_they_are(network, splits, bundle):
    """Those that are given are in the bundle; with none given there are none."""
    centres = {"block1_centres2": torch.tensor([0.5, 2.0])}
    assert pack(network, splits, "1", centres=centres).centres == centres
    assert bundle.centres == {}


def test_a_network_of_one_block_can_be_packed(spec, make_network, splits):
    """It has no carry, so its plan sends the image and coding takes no time."""
    single = spec.model_copy(update={"blocks": spec.blocks[-1:]})
    packed = pack(make_network(single), splits, "1")
    assert packed.manifest.static_plan.partition == 0
    assert packed.manifest.profiles["default"].encode_ms == 0
