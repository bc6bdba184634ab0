import csv
import json
import math
import pickle

import pytest
import torch
from pydantic import ValidationError

from xpi_ray.errors import DataError
from xpi_ray.networks.plain import PlainNetwork
from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.training.data import silent
from xpi_ray.training.objectives import CrossEntropy, Joint
from xpi_ray.training.trainer import (
    CHECKPOINT,
    LOG,
    PRETRAINED_RATE,
    Trainer,
    TrainingConfig,
    exit_accuracies,
    read_weights,
)

CONFIG = TrainingConfig(epochs=3, batch_size=32, peak_learning_rate=0.1, seed=3)


@pytest.fixture
def make_trainer(spec, tmp_path):
    """Makes a trainer of a fresh network, always of the same weights."""

    def make(folder="run", config=CONFIG, track=silent, spec=spec, seed=5, turns=None):
        torch.manual_seed(seed)
        objective = Joint(CrossEntropy())
        return Trainer(XpiNetwork(spec), objective, config, tmp_path / folder, track, turns)

    return make


class Stopped(Exception):
    """Somebody pulled the plug."""


def stopping_at(epoch, step):
    """Return a tracker that breaks off within an epoch."""

    def track(items, total, description):
        for number, item in enumerate(items):
            if description.startswith(f"epoch {epoch}/") and number == step:
                raise Stopped
            yield item

    return track


def log_of(folder):
    """Read a run's log."""
    with (folder / LOG).open() as file:
        return list(csv.DictReader(file))


def test_a_tiny_network_learns(make_trainer, separable):
    """The loss falls, the last exit tells most images apart, and the log has a line an epoch."""
    config = CONFIG.model_copy(update={"epochs": 6})
    trainer = make_trainer(config=config)
    accuracies = trainer.run(separable.train, separable.validation)
    log = log_of(trainer.folder)
    assert [row["epoch"] for row in log] == list("123456")
    assert float(log[-1]["loss"]) < 0.7 * float(log[0]["loss"])
    assert accuracies[-1] > 0.6
    assert accuracies == exit_accuracies(trainer.network, separable.validation)
    assert [float(log[-1][f"exit_{i}_accuracy"]) for i in (1, 2, 3, 4)] == pytest.approx(
        accuracies, abs=1e-4
    )
    assert json.loads((trainer.folder / "config.json").read_text()) == config.model_dump()


def test_a_network_learns_in_fewer_bits(make_trainer, separable):
    """With bfloat16 it learns as well, and weights and exits stay float32."""
    config = CONFIG.model_copy(update={"epochs": 6, "bfloat16": True})
    trainer = make_trainer(config=config)
    assert trainer.run(separable.train, separable.validation)[-1] > 0.6
    assert {p.dtype for p in trainer.network.parameters()} == {torch.float32}
    images = separable.validation.images[:2]
    with torch.autocast("cpu", torch.bfloat16):
        assert {exit_.dtype for exit_ in trainer.network(images)} == {torch.float32}


def test_a_run_of_before_a_setting_was_known_is_resumed(make_trainer, separable):
    """A checkpoint that lacks a younger setting had its default."""
    trainer = make_trainer()
    trainer.run(separable.train, separable.validation)
    path = trainer.folder / CHECKPOINT
    saved = torch.load(path, weights_only=True)
    del saved["config"]["bfloat16"]
    torch.save(saved, path)
    again = make_trainer()
    again.resume()
    assert again.epoch == CONFIG.epochs


def test_a_run_that_was_stopped_ends_as_an_unbroken_one(make_trainer, separable):
    """Stopped in epoch 2, resumed in a new process' stead: the same weights to the last bit."""
    unbroken = make_trainer("unbroken")
    expected = unbroken.run(separable.train, separable.validation)
    stopped = make_trainer("stopped", track=stopping_at(epoch=2, step=3))
    with pytest.raises(Stopped):
        stopped.run(separable.train, separable.validation)
    resumed = make_trainer("stopped", seed=99)
    resumed.resume()
    assert resumed.epoch == 1
    assert resumed.run(separable.train, separable.validation) == expected
    assert_same(resumed.network, unbroken.network)
    assert [row["epoch"] for row in log_of(resumed.folder)] == ["1", "2", "3"]
    assert [row["loss"] for row in log_of(resumed.folder)] == [
        row["loss"] for row in log_of(unbroken.folder)
    ]


def assert_same(module, expected):
    """Compare every weight and statistic to the last bit."""
    found = module.state_dict()
    for name, values in expected.state_dict().items():
        assert torch.equal(found[name], values), name


def test_a_finished_run_only_tells_its_accuracy(make_trainer, separable):
    """Resuming what is done changes no weight and adds no line."""
    trainer = make_trainer()
    expected = trainer.run(separable.train, separable.validation)
    again = make_trainer()
    again.resume()
    assert again.run(separable.train, separable.validation) == expected
    assert len(log_of(again.folder)) == 3


def test_a_new_run_replaces_the_old_one(make_trainer, separable):
    """Started anew in a used folder, the log holds the new run alone."""
    for _ in range(2):
        make_trainer().run(separable.train, separable.validation)
    assert len(log_of(make_trainer().folder)) == 3


def test_a_new_run_is_not_taken_for_the_old_one(make_trainer, separable):
    """Stopped in its first epoch and resumed, it begins anew; the old run's weights are gone."""
    make_trainer(seed=99).run(separable.train, separable.validation)
    with pytest.raises(Stopped):
        make_trainer(track=stopping_at(epoch=1, step=3)).run(separable.train, separable.validation)
    resumed, unbroken = make_trainer(), make_trainer("unbroken")
    resumed.resume()
    assert resumed.epoch == 0
    for trainer in (resumed, unbroken):
        trainer.run(separable.train, separable.validation)
    assert_same(resumed.network, unbroken.network)
    assert [row["epoch"] for row in log_of(resumed.folder)] == ["1", "2", "3"]


def test_resuming_nothing_starts_at_the_beginning(make_trainer):
    """A folder without a checkpoint is no error."""
    trainer = make_trainer()
    trainer.resume()
    assert trainer.epoch == 0


@pytest.mark.parametrize("change", [{"batch_size": 16}, {"purpose": "distilled on mnist"}])
def test_other_settings_are_not_resumed(make_trainer, separable, change):
    """A checkpoint of another batch size or purpose is refused, and the message shows its own."""
    config = CONFIG.model_copy(update={"purpose": "plain_joint on mnist"})
    make_trainer(config=config).run(separable.train, separable.validation)
    other = make_trainer(config=config.model_copy(update=change))
    (name,) = change
    with pytest.raises(DataError, match=rf"other settings .*'{name}': {getattr(config, name)!r}"):
        other.resume()
    assert other.epoch == 0


def test_other_turns_are_not_resumed(make_trainer, separable):
    """Turns that end at other times, or none, are refused; the same ones are taken up."""
    make_trainer(turns=(1.0, 3.0)).run(separable.train, separable.validation)
    for turns in ((1.5, 3.0), (1.0, 2.0, 3.0), None):
        with pytest.raises(DataError, match="other settings"):
            make_trainer(turns=turns).resume()
    same = make_trainer(turns=(1.0, 3.0))
    same.resume()
    assert same.epoch == 3


def test_another_network_is_not_resumed(make_trainer, separable, spec):
    """A checkpoint of other blocks is refused."""
    make_trainer().run(separable.train, separable.validation)
    fewer = spec.model_copy(update={"blocks": spec.blocks[:2]})
    with pytest.raises(DataError, match="another network"):
        make_trainer(spec=fewer).resume()


class Bomb:
    """Goes off when it is unpickled."""

    def __reduce__(self):
        """Name a call for the one who unpickles."""
        return pytest.fail, ("code of the checkpoint ran",)


def test_a_checkpoint_runs_no_code(make_trainer):
    """A checkpoint that holds anything but plain values and tensors is not loaded."""
    trainer = make_trainer()
    trainer.folder.mkdir()
    torch.save({"config": Bomb()}, trainer.folder / CHECKPOINT)
    with pytest.raises(DataError, match="damaged or no checkpoint") as caught:
        trainer.resume()
    assert isinstance(caught.value.__cause__, pickle.UnpicklingError)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04cut short", b"no checkpoint at all"])
def test_a_damaged_checkpoint_is_named(make_trainer, content):
    """Whatever is in its place, the message names the file, and nothing is trained."""
    trainer = make_trainer()
    trainer.folder.mkdir(parents=True, exist_ok=True)
    (trainer.folder / CHECKPOINT).write_bytes(content)
    for read in (trainer.resume, lambda: read_weights(trainer.folder)):
        with pytest.raises(DataError, match=CHECKPOINT):
            read()
    torch.save({"weights": torch.zeros(2)}, trainer.folder / CHECKPOINT)
    with pytest.raises(DataError, match="no checkpoint of"):
        trainer.resume()


def test_too_few_images_for_a_batch_are_refused(make_trainer, separable):
    """A batch that the training split cannot fill is named."""
    config = CONFIG.model_copy(update={"batch_size": 161})
    with pytest.raises(DataError, match="161 needs as many training images, got 160"):
        make_trainer(config=config).run(separable.train, separable.validation)


def test_the_learning_rate_rises_and_falls(make_trainer, separable):
    """It starts at 0, peaks after the warm-up and follows a cosine to almost 0."""
    rates = []

    def track(items, total, description):
        for item in items:
            yield item
            rates.append(trainer.optimizer.param_groups[0]["lr"])

    trainer = make_trainer(track=track)
    trainer.run(separable.train, separable.validation)
    steps, warm_up = 15, CONFIG.warm_up  # 3 epochs of 5 batches
    expected = [
        share / warm_up
        if share < warm_up
        else (1 + math.cos(math.pi * (share - warm_up) / (1 - warm_up))) / 2
        for share in (step / steps for step in range(steps))
    ]
    assert rates == pytest.approx([0.1 * share for share in expected])
    assert max(rates) == pytest.approx(0.1)


def test_weight_decay_leaves_norms_and_fusions_alone(make_trainer):
    """Only weights with more than one dimension shrink; every parameter is in one group."""
    trainer = make_trainer()
    decayed, free = trainer.optimizer.param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (CONFIG.weight_decay, 0)
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert all(parameter.ndim <= 1 for parameter in free["params"])
    assert len(decayed["params"]) + len(free["params"]) == len([*trainer.network.parameters()])


def test_what_is_pretrained_learns_slowly(make_trainer, monkeypatch):
    """Its groups have a small share of the rate of all others, and every weight is in one group."""
    monkeypatch.setattr(XpiNetwork, "pretrained", lambda self: [self.block(2).extractor])
    trainer = make_trainer()
    slow = set(trainer.network.block(2).extractor.parameters())
    found = [
        (parameter in slow, group["rate"])
        for group in trainer.optimizer.param_groups
        for parameter in group["params"]
    ]
    assert set(found) == {(False, 1.0), (True, PRETRAINED_RATE)}
    assert len(found) == len(list(trainer.network.parameters()))


def test_accuracy_does_not_depend_on_the_batch(network, splits):
    """Batches of any size, the last one smaller, give the same shares."""
    whole = exit_accuracies(network, splits.validation)
    assert exit_accuracies(network, splits.validation, batch_size=5) == whole
    for exit_, accuracy in zip(network(splits.validation.images), whole, strict=True):
        hits = (exit_.argmax(1) == splits.validation.labels).float().mean()
        assert accuracy == pytest.approx(float(hits))


@pytest.mark.parametrize(
    "values", [{"epochs": 0}, {"batch_size": 0}, {"warm_up": 1.0}, {"momentum": 1.0}, {"epoch": 3}]
)
def test_impossible_settings_are_refused(values):
    """Settings out of range and misspelt ones are errors."""
    with pytest.raises(ValidationError):
        TrainingConfig(**values)


def test_the_log_names_exits_by_their_blocks(plain_spec, separable, tmp_path):
    """A network with exits after blocks 2 and 4 has a column for each of them and no other."""
    torch.manual_seed(5)
    trainer = Trainer(PlainNetwork(plain_spec), Joint(CrossEntropy()), CONFIG, tmp_path)
    accuracies = trainer.run(separable.train, separable.validation)
    last = log_of(tmp_path)[-1]
    told = {name: float(value) for name, value in last.items() if name.startswith("exit")}
    assert told == pytest.approx(
        dict(zip(("exit_2_accuracy", "exit_4_accuracy"), accuracies, strict=True)), abs=1e-4
    )
