import pytest
import torch

from rl.sacd.training import CHECKPOINT, WEIGHTS, TrainingConfig, accuracies, train, trained
from xpi_ray.errors import DataError, TrainingError

CONFIG = TrainingConfig(epochs=2, batch=64)


def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(noise, tmp_path):
    """Two epochs with a stop after the first give the weights of two at once."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    best = train(noise, whole, CONFIG)

    class StoppedError(Exception):
        pass

    def stop(_):
        raise StoppedError

    with pytest.raises(StoppedError):
        train(noise, halves, CONFIG, tell=stop)
    assert torch.load(halves / CHECKPOINT, weights_only=True)["epoch"] == 1
    assert train(noise, halves, CONFIG) == best
    first, second = (torch.load(f / CHECKPOINT, weights_only=True) for f in (whole, halves))
    for name, value in first["network"].items():
        assert torch.equal(value, second["network"][name]), name


def test_the_best_epoch_is_kept(noise, tmp_path):
    """What is loaded is as accurate on validation as training says."""
    best = train(noise, tmp_path, TrainingConfig(epochs=3, batch=64))
    assert accuracies(trained(tmp_path), noise.validation) == pytest.approx(best, abs=0.03)
    assert best[-1] > 0.5


def test_another_configuration_is_refused(noise, tmp_path):
    """A folder holds one training."""
    train(noise, tmp_path, TrainingConfig(epochs=1, batch=64))
    with pytest.raises(TrainingError, match="another folder"):
        train(noise, tmp_path, TrainingConfig(epochs=1, batch=64, seed=1))


def test_missing_weights_name_the_command(tmp_path):
    """And the folder to give it."""
    with pytest.raises(DataError, match=rf"{WEIGHTS} is missing.*xpi train-sacd"):
        trained(tmp_path)


def test_real_images_are_learned(cifar10, tmp_path):
    """640 images of CIFAR-10, shown twice: each exit does better than chance."""
    few = cifar10._replace(
        train=cifar10.train._replace(
            images=cifar10.train.images[:640], labels=cifar10.train.labels[:640]
        ),
        validation=cifar10.validation._replace(
            images=cifar10.validation.images[:500], labels=cifar10.validation.labels[:500]
        ),
    )
    assert min(train(few, tmp_path, TrainingConfig(epochs=2, batch=64))) > 0.12
