import copy
import json

import pytest
import torch

from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.training.data import silent
from xpi_ray.training.fine_tuning import LEARNING_RATE_SHARE, fine_tuned_if_better
from xpi_ray.training.objectives import CrossEntropy, Joint
from xpi_ray.training.quantization import CarryQuantization
from xpi_ray.training.stages import Staged
from xpi_ray.training.trainer import Trainer, TrainingConfig, exit_accuracies

CONFIG = TrainingConfig(epochs=9, batch_size=32, peak_learning_rate=0.5, seed=3)
NEVER, ALWAYS = [1.0] * 4, [-1.0] * 4  # accuracies that nothing exceeds, and that all do


class Stopped(Exception):
    """Somebody pulled the plug."""


def stop_in_the_second_epoch(items, total, description):
    """Show nothing, and break off."""
    if description.startswith("epoch 2/"):
        raise Stopped
    return items


@pytest.fixture
def fine_tune(separable, tmp_path):
    """Fine-tune a network for two epochs against the accuracies that it is said to have."""

    def run(network, accuracies, folder="fine-tune", track=silent, resume=False, objective=None):
        objective = objective or Joint(CrossEntropy())
        return fine_tuned_if_better(
            network, objective, CONFIG, 2, tmp_path / folder, track, separable, accuracies, resume
        )

    return run


def frozen(spec):
    """A network as front-to-back training leaves it: all but the last block frozen."""
    torch.manual_seed(5)
    network = XpiNetwork(spec)
    network.blocks[:3].requires_grad_(False)
    return network


def test_a_fine_tune_that_does_not_help_is_undone(spec, fine_tune):
    """Weights and statistics are the old ones to the last bit."""
    network = frozen(spec)
    before = copy.deepcopy(network.state_dict())
    assert fine_tune(network, NEVER) is None
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_fine_tune_that_helps_is_kept(spec, separable, fine_tune):
    """All blocks have learnt, the frozen ones too, and the new accuracies are told."""
    network = frozen(spec)
    before = copy.deepcopy(network.state_dict())
    told = fine_tune(network, ALWAYS)
    assert told == exit_accuracies(network, separable.validation)
    names = [name for name, _ in network.named_parameters() if name.endswith("weight")]
    names.remove("blocks.0.fusion_weight")  # exit 1 has no earlier one
    assert not any(torch.equal(network.state_dict()[name], before[name]) for name in names)


def test_the_mean_over_the_exits_decides(spec, separable, fine_tune):
    """The first exit may lose where the others gain more, and the other way round."""
    reached = fine_tune(frozen(spec), ALWAYS, "probe")
    worse_but_first = [1.0, *(value - 0.5 for value in reached[1:])]
    assert fine_tune(frozen(spec), worse_but_first, "kept") == reached
    better_but_first = [-1.0, *(value + 1.0 for value in reached[1:])]
    assert fine_tune(frozen(spec), better_but_first, "undone") is None


def test_a_quantised_fine_tune_has_centres_that_fit(spec, separable, fine_tune, tmp_path):
    """They lose less than twice as much as those that are spread over the new carries."""
    network = frozen(spec)
    network.thaw()
    config = CONFIG.model_copy(update={"peak_learning_rate": 0.1})
    Trainer(network, Joint(CrossEntropy()), config, tmp_path).run(separable.train, separable.train)
    tuned, spread = CarryQuantization(4).eval(), CarryQuantization(4).eval()
    fine_tune(network, ALWAYS, objective=Staged(network, CrossEntropy(), quantization=tuned))
    state = network.start(separable.validation.images)
    for number in range(1, network.num_blocks):
        state = network.advance(state, number)
        carry = state.carry.detach()
        spread.initialise(number, carry)
        for level in spread.levels[1:]:
            lost = [
                (found.eval().quantize(carry, number, level) - carry).square().mean()
                for found in (tuned, spread)
            ]
            assert lost[0] < 2 * lost[1], (number, level, lost)


def test_learning_rates_are_gentle(spec, fine_tune, tmp_path):
    """A tenth of the training's, for the epochs asked for; all else is the training's."""
    fine_tune(frozen(spec), NEVER)
    used = json.loads((tmp_path / "fine-tune" / "config.json").read_text())
    gentle = {"epochs": 2, "peak_learning_rate": 0.5 * LEARNING_RATE_SHARE}
    assert used == {**CONFIG.model_dump(), **gentle}


def test_a_fine_tune_that_was_stopped_goes_on(spec, fine_tune):
    """It ends with the weights and accuracies of an unbroken one."""
    unbroken, stopped, resumed = frozen(spec), frozen(spec), frozen(spec)
    expected = fine_tune(unbroken, ALWAYS, "unbroken")
    with pytest.raises(Stopped):
        fine_tune(stopped, ALWAYS, "stopped", track=stop_in_the_second_epoch)
    assert fine_tune(resumed, ALWAYS, "stopped", resume=True) == expected
    found = resumed.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in unbroken.state_dict().items())
