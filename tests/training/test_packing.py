import numpy as np
import pytest
import torch

from xpi_ray.bundle import Bundle
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


@pytest.mark.parametrize("kept", [{2}, set()])
def test_a_plain_network_is_packed_with_the_exits_that_it_has(
    plain_spec, make_network, splits, tmp_path, kept
):
    """Saved and loaded it answers alike; nobody is to leave where there is no exit."""
    network = make_network(plain_spec).keeping(kept)
    packed = pack(network, splits, "1")
    manifest = packed.manifest
    assert manifest.network.kind == "plain"
    assert manifest.description == (
        f"Plain network of 4 blocks with {len(kept) + 1} exits, trained on noise"
    )
    packed.save(tmp_path)
    loaded = Bundle.load(tmp_path)
    assert loaded.network.exits == network.exits
    images = splits.validation.images
    for expected, found in zip(network(images), loaded.network.eval()(images), strict=True):
        assert torch.equal(found, expected)
    missing = [block for block in (1, 2, 3, 4) if block not in network.exits]
    sets = [calibration.thresholds for calibration in manifest.calibrations]
    for thresholds in (*sets, manifest.static_plan.thresholds):
        assert all(thresholds[block - 1] == 0 for block in missing)
        exits = first_sure_exit(loaded.outcomes.entropy, np.array(thresholds))
        assert set(exits.tolist()) <= set(network.exits)
    assert [block for block, there in enumerate(loaded.outcomes.exits, 1) if not there] == missing
    assert len(loaded.population.entropy) == 12


def test_a_codec_may_be_chosen(plain_spec, make_network, splits):
    """The bundle names it, its outcomes are measured with it, and the plan is as of any other."""
    packed = pack(make_network(plain_spec), splits, "1", codec="float32")
    assert (packed.manifest.codec, packed.ladder.levels) == ("float32", 1)
    assert len(packed.outcomes.frame_bytes) == 1
    assert packed.outcomes.resumed_entropy[0, 2] == pytest.approx(packed.outcomes.entropy, abs=1e-5)
    assert packed.manifest.static_plan.partition == 2
