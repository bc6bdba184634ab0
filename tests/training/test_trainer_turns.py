import csv
import math
from functools import partial

import pytest
import torch

from xpi_ray.errors import DataError
from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.training import stages
from xpi_ray.training.data import silent
from xpi_ray.training.losses import Manipulation
from xpi_ray.training.objectives import CrossEntropy, Joint
from xpi_ray.training.quantization import CarryQuantization
from xpi_ray.training.stages import CENTRES_RATE, Staged
from xpi_ray.training.trainer import LOG, Trainer, TrainingConfig

CONFIG = TrainingConfig(epochs=4, batch_size=32, peak_learning_rate=0.1, seed=3)
TURNS = (0.6, 1.4, 2.0, 2.6, 4.0)  # all blocks, then 1 to 4; at 5 batches an epoch
QUICK = Manipulation(reference_steps=4)
FOLLOWED = QUICK.model_copy(update={"reference_follows": True})


class Stopped(Exception):
    """Somebody pulled the plug."""


def log_of(folder):
    """Read a run's log."""
    with (folder / LOG).open() as file:
        return list(csv.DictReader(file))


def assert_same(module, expected):
    """Compare every weight and statistic to the last bit."""
    found = module.state_dict()
    for name, values in expected.state_dict().items():
        assert torch.equal(found[name], values), name


def xai_trainer(
    spec, folder, track=silent, prediction=None, seed=5, manipulation=QUICK, together=False
):
    """Make one whose blocks take turns, with importance moved and carries quantised."""
    torch.manual_seed(seed)
    network = XpiNetwork(spec)
    objective = Staged(
        network,
        prediction or CrossEntropy(),
        manipulation,
        together,
        quantization=CarryQuantization(network.num_blocks),
        entropy_weight=0.05,
    )
    return Trainer(network, objective, CONFIG, folder, track, TURNS)


@pytest.fixture
def make_xai_trainer(spec, tmp_path):
    """Makes them in the test's own folder."""
    return partial(xai_trainer, spec, tmp_path)


@pytest.fixture(scope="module")
def unbroken(spec, separable, tmp_path_factory):
    """A front-to-back training that nothing interrupts."""
    trainer = xai_trainer(spec, tmp_path_factory.mktemp("unbroken"))
    return trainer, trainer.run(separable.train, separable.validation)


class Fragile(CrossEntropy):
    """Breaks down in the midst of one batch."""

    def __init__(self, batch):
        self.left = batch

    def __call__(self, exits, images, labels):
        """Judge, or break down."""
        if self.left == 0:
            raise Stopped
        self.left -= 1
        return super().__call__(exits, images, labels)


# Turns change at batches 3, 7, 10 and 13.
@pytest.mark.parametrize("batch", [1, 3, 5, 6, 7, 10, 13, 19])
def test_turns_go_on_after_a_stop(make_xai_trainer, unbroken, separable, batch):
    """Stopped in the first epoch, in a turn, as one begins or as an epoch does: the same weights.

    So are the reference networks, the centres, and what the log says.
    """
    stopped = make_xai_trainer(prediction=Fragile(batch))
    with pytest.raises(Stopped):
        stopped.run(separable.train, separable.validation)
    resume_and_compare(make_xai_trainer, unbroken, separable, epoch=batch // 5)


def resume_and_compare(make, unbroken, separable, epoch):
    """Take up a stopped run with other fresh weights, and compare its end with the unbroken's."""
    expected, accuracies = unbroken
    resumed = make(seed=99 if epoch else 5)
    resumed.resume()
    assert resumed.epoch == epoch
    assert resumed.run(separable.train, separable.validation) == accuracies
    assert_same(resumed.network, expected.network)
    assert_same(resumed.objective, expected.objective)
    columns = ("epoch", "loss", "exit_1_accuracy", "exit_4_accuracy")
    logs = [[[row[c] for c in columns] for row in log_of(t.folder)] for t in (resumed, expected)]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("batch", [8, 14])
@pytest.mark.parametrize("together", [True, False])
def test_references_that_follow_go_on_after_a_stop(spec, separable, tmp_path, batch, together):
    """What they learnt, and how fast they were learning it, is in the checkpoint."""
    make = partial(xai_trainer, spec, manipulation=FOLLOWED, together=together)
    unbroken = make(tmp_path / "unbroken")
    accuracies = unbroken.run(separable.train, separable.validation)
    with pytest.raises(Stopped):
        make(tmp_path / "stopped", prediction=Fragile(batch)).run(
            separable.train, separable.validation
        )
    again = partial(make, tmp_path / "stopped")
    resume_and_compare(again, (unbroken, accuracies), separable, epoch=batch // 5)


# Centres have all blocks' turn too; block 2, which is residual, is not mapped.
@pytest.mark.parametrize(
    ("step", "call", "epoch"),
    [("_spread_centres", 3, 1), ("fit_reference", 2, 1), ("map_channels", 2, 2)],
)
def test_a_block_that_was_not_made_ready_is_made_so_again(
    make_xai_trainer, unbroken, separable, monkeypatch, step, call, epoch
):
    """Stopped while a turn, block 2's or 3's, is prepared, it is prepared from the beginning."""
    owner = Staged if step.startswith("_") else stages
    original, calls = getattr(owner, step), []

    def fragile(*args):
        calls.append(args)
        if len(calls) == call:
            raise Stopped
        return original(*args)

    monkeypatch.setattr(owner, step, fragile)
    with pytest.raises(Stopped):
        make_xai_trainer().run(separable.train, separable.validation)
    monkeypatch.undo()
    resume_and_compare(make_xai_trainer, unbroken, separable, epoch)


@pytest.mark.parametrize("epochs", [0, 2])
def test_a_stop_while_the_checkpoint_is_written_does_no_harm(
    make_xai_trainer, unbroken, separable, monkeypatch, epochs
):
    """The half-written file is not taken for a checkpoint; the one before it, if any, is.

    The epoch was logged already; in the end the log has one line of it.
    """
    trainer = make_xai_trainer()
    save, done = torch.save, []

    def fragile(state, path):
        if len(done) == epochs:
            path.write_bytes(b"PK half of a checkpoint")
            raise Stopped
        save(state, path)
        done.append(path)

    monkeypatch.setattr(torch, "save", fragile)
    with pytest.raises(Stopped):
        trainer.run(separable.train, separable.validation)
    monkeypatch.undo()
    assert len(log_of(trainer.folder)) == epochs + 1
    resume_and_compare(make_xai_trainer, unbroken, separable, epochs)


@pytest.mark.parametrize("manipulation", [QUICK, FOLLOWED], ids=["frozen", "followed"])
def test_every_turn_has_a_cycle_of_its_own(make_xai_trainer, separable, manipulation):
    """The rate rises from 0 and falls in each turn; centres have a share of it.

    References that follow learn at the network's rate.
    """
    rates = []

    def track(items, total, description):
        for item in items:
            yield item
            rates.append([group["lr"] for group in trainer.optimizer.param_groups])

    trainer = make_xai_trainer(track=track, manipulation=manipulation)
    trainer.run(separable.train, separable.validation)
    ends = (0.0, *TURNS)
    for step, (decayed, free, *references, centres) in enumerate(rates):
        now = step / 5
        turn = max(number for number, start in enumerate(ends[:-1]) if start <= now)
        share, warm_up = (now - ends[turn]) / (ends[turn + 1] - ends[turn]), CONFIG.warm_up
        if share < warm_up:
            expected = share / warm_up
        else:
            expected = (1 + math.cos(math.pi * (share - warm_up) / (1 - warm_up))) / 2
        assert decayed == free == pytest.approx(0.1 * expected)
        assert references == [decayed] * 2 * manipulation.reference_follows
        assert centres == pytest.approx(CENTRES_RATE * decayed)
    for start in (0, 3, 7, 10, 13):
        assert rates[start][0] < rates[start + 1][0]


@pytest.mark.parametrize("manipulation", [QUICK, FOLLOWED], ids=["frozen", "followed"])
def test_the_trainer_trains_what_the_objective_names(make_xai_trainer, manipulation):
    """Every centre is in the optimiser; all of the reference networks are, or nothing of them."""
    trainer = make_xai_trainer(manipulation=manipulation)
    held = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    objective = trainer.objective
    assert all(id(p) in held for p in objective.quantization.parameters())
    references = {id(p) in held for p in objective.references.parameters()}
    assert references == {manipulation.reference_follows}
    assert all(id(p) in held for p in trainer.network.parameters())


@pytest.mark.parametrize(
    ("turns", "empty"),
    [((0.1, 0.3, 4.0), 0), ((0.0, 4.0), 0), ((2.05, 2.1, 4.0), 1), ((1.85, 1.95, 4), 1)],
)
def test_a_turn_without_a_batch_is_refused(spec, separable, tmp_path, turns, empty):
    """At 5 batches an epoch; only the joint turn may be left out, where networks are trained."""
    trainer = Trainer(XpiNetwork(spec), Joint(CrossEntropy()), CONFIG, tmp_path, turns=turns)
    if empty:
        with pytest.raises(DataError, match=f"{empty} of {len(turns)} turns would pass without"):
            trainer.run(separable.train, separable.validation)
    else:
        trainer._check_turns(len(separable.train.labels))
