import copy

import pytest
import torch
from torch import nn

from xpi_ray.errors import TrainingError
from xpi_ray.networks.attach import attach_exits
from xpi_ray.training.attaching import train_exits
from xpi_ray.training.recipes import RECIPES
from xpi_ray.training.trainer import (
    PRETRAINED_RATE,
    Trainer,
    TrainingConfig,
    exit_accuracies,
    read_weights,
)

CONFIG = TrainingConfig(epochs=4, batch_size=32, peak_learning_rate=0.1, seed=3)


@pytest.fixture(scope="module")
def attached(separable):
    """A small CNN with exits that were not trained, three in all; not to be changed."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)),
    )
    return attach_exits(
        model, num_classes=5, image_size=(10, 6), mean=(0.5, 0.5, 0.5), std=(0.3, 0.3, 0.3)
    )


@pytest.fixture
def network(attached):
    """A copy of it."""
    return copy.deepcopy(attached)


def test_frozen_branches_learn_and_nothing_else(network, separable, tmp_path):
    """They learn to tell brightness; the graph and its exit stay, to the last bit."""
    before = copy.deepcopy(network.graph.state_dict())
    own = exit_accuracies(network, separable.validation)[-1]
    accuracies = train_exits(
        network, separable, RECIPES["plain_joint"], CONFIG, tmp_path, frozen=True
    )
    after = network.graph.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    assert accuracies[-1] == own
    assert min(accuracies[:-1]) > 0.5
    assert accuracies == exit_accuracies(network, separable.validation)


def test_branches_of_a_frozen_graph_learn_as_if_each_were_alone(attached, separable, tmp_path):
    """Their weights after a training are those of a training of that one."""
    config = CONFIG.model_copy(update={"epochs": 1})
    plain = RECIPES["plain_joint"]
    whole, single = copy.deepcopy(attached), attached.keeping({2})
    train_exits(whole, separable, plain, config, tmp_path / "whole", frozen=True)
    train_exits(single, separable, plain, config, tmp_path / "single", frozen=True)
    expected = single.branches["2"].state_dict()
    for name, value in whole.branches["2"].state_dict().items():
        assert torch.allclose(value, expected[name], atol=1e-5), name


def test_with_the_backbone_all_exits_learn(network, separable, tmp_path):
    """It moves too, at a small share of the branches' rate."""
    before = copy.deepcopy(network.graph.state_dict())
    accuracies = train_exits(network, separable, RECIPES["plain_joint"], CONFIG, tmp_path)
    assert min(accuracies[:-1]) > 0.5
    after = network.graph.state_dict()
    assert not any(torch.equal(after[n], v) for n, v in before.items() if n.endswith("weight"))
    groups = Trainer(network, RECIPES["plain_joint"].objective(network), CONFIG, tmp_path)
    rates = {
        weight: group["rate"]
        for group in groups.optimizer.param_groups
        for weight in group["params"]
    }
    assert all(rates[weight] == PRETRAINED_RATE for weight in network.graph.parameters())
    assert all(rates[weight] == 1 for weight in network.branches.parameters())


def test_a_run_goes_on_where_it_stopped(attached, separable, tmp_path):
    """A frozen one ends with the weights of one that was never stopped."""

    def stop(items, total, description):
        if description.startswith("epoch 3"):
            raise KeyboardInterrupt
        return items

    plain = RECIPES["plain_joint"]
    whole = tmp_path / "whole"
    train_exits(copy.deepcopy(attached), separable, plain, CONFIG, whole, frozen=True)
    folder = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        train_exits(copy.deepcopy(attached), separable, plain, CONFIG, folder, True, track=stop)
    train_exits(copy.deepcopy(attached), separable, plain, CONFIG, folder, True, resume=True)
    expected = read_weights(whole)
    for name, value in read_weights(folder).items():
        assert torch.equal(value, expected[name]), name


def test_what_cannot_be_trained_is_refused(network, separable, tmp_path):
    """No branch to train, or a training for networks of other blocks."""
    with pytest.raises(TrainingError, match="has nothing to learn"):
        train_exits(
            network.keeping(()), separable, RECIPES["plain_joint"], CONFIG, tmp_path, frozen=True
        )
    with pytest.raises(TrainingError, match="only networks of Xpi blocks"):
        train_exits(network, separable, RECIPES["xai"], CONFIG, tmp_path)
    assert not list(tmp_path.iterdir())
