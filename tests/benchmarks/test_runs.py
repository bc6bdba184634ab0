import copy
import dataclasses

import pytest
import torch

from benchmarks import runs, training_ablation
from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.training.data import Split
from xpi_ray.training.losses import Manipulation
from xpi_ray.training.objectives import CrossEntropy
from xpi_ray.training.quantization import CarryQuantization
from xpi_ray.training.stages import Staged


def save_checkpoint(folder, network, objective_state, epoch=3):
    """Leave a checkpoint of three epochs as the trainer does."""
    saved = {
        "config": {"epochs": 3, "seed": 5},
        "network": network.state_dict(),
        "objective": objective_state,
        "epoch": epoch,
    }
    torch.save(saved, folder / "checkpoint.pt")


@pytest.fixture
def objective(network):
    """A front-to-back objective whose centres and references are no fresh ones."""
    torch.manual_seed(8)
    quantization = CarryQuantization(network.num_blocks)
    with torch.no_grad():
        quantization.centres(2, 4).values.copy_(torch.tensor([0.0, 5.0, 6.0, 9.0]))
    return Staged(network, CrossEntropy(), Manipulation(), quantization=quantization)


@pytest.fixture
def run(bundle, objective, tmp_path):
    """A run of `xpi train` with references and centres, opened."""
    bundle.save(tmp_path / "bundle")
    save_checkpoint(tmp_path, bundle.network, objective.state_dict())
    return runs.open_full(tmp_path, "xai_quantized")


def test_a_full_run_opens_with_what_it_was_trained_with(run, bundle, objective):
    """Weights, reference networks and centres are those saved, the seed is the configuration's."""
    assert run.key == {
        "dataset": "noise",
        "network": "xpi4",
        "training": "xai_quantized",
        "seed": 5,
    }
    for name, weights in bundle.network.state_dict().items():
        assert torch.equal(run.network.state_dict()[name], weights)
    assert run.objective.quantization.centres(2, 4).values.tolist() == [0, 5, 6, 9]
    features = torch.rand(2, 8, *bundle.network.carry_shape(2)[1:])
    expected = objective.eval().references["2"](features)
    assert torch.equal(run.objective.references["2"](features), expected)


def test_a_run_of_joint_training_has_no_objective_of_its_own(bundle, tmp_path):
    """Joint training saves no state of its objective; there is nothing to go by."""
    bundle.save(tmp_path / "bundle")
    save_checkpoint(tmp_path, bundle.network, {})
    assert runs.open_full(tmp_path, "plain_joint").objective is None


def test_references_do_not_outlive_a_fine_tune(bundle, objective, tmp_path):
    """Where the bundle's weights are no more the checkpoint's, only the centres count."""
    centres = {"block2_centres4": torch.tensor([0.0, 5.0, 6.0, 9.0])}
    dataclasses.replace(bundle, centres=centres).save(tmp_path / "bundle")
    tuned = copy.deepcopy(bundle.network)
    with torch.no_grad():
        tuned.block(1).branch.classifier.weight += 0.1
    save_checkpoint(tmp_path, tuned, objective.state_dict())
    found = runs.open_full(tmp_path, "xai_quantized").objective
    assert len(found.references) == 0
    assert found.quantization.centres(2, 4).values.tolist() == [0, 5, 6, 9]


def test_an_unfinished_run_of_the_ablation_is_not_opened(tmp_path, splits, capsys):
    """Two epochs of three are not judged; three are."""
    folder = tmp_path / "xai_k_30" / "1"
    folder.mkdir(parents=True)
    network = training_ablation.new_network("xai_k_30", splits)
    save_checkpoint(folder, network, {}, epoch=2)
    assert list(training_ablation.finished(tmp_path, "xai_k_30")) == []
    assert "not finished" in capsys.readouterr().out
    save_checkpoint(folder, network, {}, epoch=3)
    ((seed, found, saved),) = training_ablation.finished(tmp_path, "xai_k_30")
    assert (seed, found, saved["epoch"]) == (1, folder, 3)


def test_a_run_is_measured_once(run):
    """Rows are kept for these weights and settings, with the run's key in each."""
    calls = []

    def measure():
        calls.append(1)
        return [{"block": len(calls)}]

    first = runs.kept(run, "skewness", {"images": 3}, measure)
    assert first == [{**run.key, "block": 1}]
    assert runs.kept(run, "skewness", {"images": 3}, measure) == first
    assert runs.kept(run, "skewness", {"images": 4}, measure)[0]["block"] == 2
    changed = XpiNetwork(run.network.spec)
    assert runs.kept(run._replace(network=changed), "skewness", {"images": 4}, measure) != first
    assert len(calls) == 3


def test_a_sample_is_the_same_every_time_and_has_no_image_twice():
    """Benchmarks compare trainings on the same images."""
    split = Split(torch.arange(50).view(50, 1, 1, 1), torch.arange(50))
    first = runs.sample(split, 20)
    assert first.labels.unique().numel() == 20
    assert torch.equal(first.labels, runs.sample(split, 20).labels)
    assert torch.equal(first.images.flatten(), first.labels)
    assert first.labels.tolist() != list(range(20))
