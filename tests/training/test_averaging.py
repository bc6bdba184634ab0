import copy

import torch

from xpi_ray.training.averaging import average_into, averaged_if_better
from xpi_ray.training.objectives import CrossEntropy
from xpi_ray.training.quantization import CarryQuantization
from xpi_ray.training.stages import CENTRE_IMAGES, Staged
from xpi_ray.training.trainer import exit_accuracies


def quantized(network):
    """What goes on with a network whose carries were quantised."""
    return Staged(network, CrossEntropy(), quantization=CarryQuantization(network.num_blocks))


def test_the_mean_of_two_runs_lies_between_them(make_network, spec, splits):
    """Each weight is the mean of the two, and the norms' statistics are measured anew."""
    one, other = make_network(spec, seed=1), make_network(spec, seed=2)
    weights = copy.deepcopy(one.state_dict())
    average_into(one, other.state_dict(), splits.train)
    for name, value in one.named_parameters():
        expected = (weights[name] + other.state_dict()[name]) / 2
        torch.testing.assert_close(value.detach(), expected)
    means = [value for name, value in one.state_dict().items() if name.endswith("running_mean")]
    assert any(mean.abs().sum() > 0 for mean in means)


def test_an_average_that_does_not_help_is_not_kept(make_network, spec, splits):
    """With an accuracy that nothing exceeds, the network keeps its own weights."""
    network, other = make_network(spec, seed=1), make_network(spec, seed=2)
    before = copy.deepcopy(network.state_dict())
    objective = quantized(network)
    assert averaged_if_better(network, objective, other.state_dict(), splits, [1.0]) is None
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_an_average_that_helps_is_kept(make_network, spec, splits):
    """With an accuracy below all, the averaged network stays, and its accuracies are told."""
    network, other = make_network(spec, seed=1), make_network(spec, seed=2)
    told = averaged_if_better(network, quantized(network), other.state_dict(), splits, [-1.0])
    assert told == exit_accuracies(network, splits.validation)


def test_centres_fit_the_average(make_network, spec, splits):
    """They are spread over the carries of the averaged network, whatever they were before."""
    network, other = make_network(spec, seed=1), make_network(spec, seed=2)
    objective = quantized(network)
    objective.begin(network, 0, splits.train, 0, 0.0)
    own = objective.centres()
    objective = quantized(network)
    averaged_if_better(network, objective, other.state_dict(), splits, [-1.0])
    expected = CarryQuantization(network.num_blocks)
    state = network.start(splits.train.images[:CENTRE_IMAGES])
    for number in range(1, network.num_blocks):
        state = network.advance(state, number)
        expected.initialise(number, state.carry)
    for name, values in expected.learned().items():
        torch.testing.assert_close(objective.centres()[name], values)
        assert not torch.equal(values, own[name])
