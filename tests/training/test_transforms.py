"""Training of the transforms behind a bundle's smallest levels."""

import copy

import pytest
import torch

from xpi_ray.compression.learned import ENDS
from xpi_ray.compression.transform import LATENTS
from xpi_ray.errors import DataError
from xpi_ray.training import transforms as module
from xpi_ray.training.transforms import (
    Learner,
    TransformConfig,
    crossings,
    train_round,
    train_transforms,
    validation_loss,
)

CONFIG = TransformConfig(steps=12, rate_weight=1e-3, network="7")


@pytest.fixture(scope="module")
def train(network, splits):
    """Trains all transforms in a folder, or goes on there."""

    def call(folder, config=CONFIG):
        return train_transforms(network, splits.train, splits.validation, config, folder)

    return call


@pytest.fixture(scope="module")
def folder(train, tmp_path_factory):
    """Of a run that is done."""
    path = tmp_path_factory.mktemp("transforms")
    train(path)
    return path


@pytest.fixture(scope="module")
def sides(network, splits):
    """What crosses the link after block 1."""
    return next(crossings(network, splits.train))


def learner_of(sides):
    """One that was not trained, whose latents are wide."""
    torch.manual_seed(0)
    learner = Learner(sides[0].carry.shape[1])
    learner.transform.normalise(sides[0].carry.float())
    learner.transform.analysis.weight.data *= 4
    return learner


def test_training_brings_carries_back(network, sides):
    """After a round what arrives is far closer to the carry than at first."""
    learner, exact = learner_of(sides), sides[0].carry.float()

    def error():
        with torch.no_grad():
            latents = learner.transform.analyse(exact).round()
            arrived = learner.transform.synthesise(latents, exact.shape[2:])
        return float(((arrived - exact) / learner.transform.scale).square().mean())

    before = error()
    train_round(learner, network, 1, sides, CONFIG._replace(steps=100, rate_weight=0.0))
    assert error() < 0.8 * before


def test_a_heavier_rate_makes_latents_smaller(network, sides):
    """Their magnitude falls with the weight of their bits in the loss."""
    sizes = []
    for weight in (0.0, 1.0):
        learner = learner_of(sides)
        train_round(learner, network, 1, sides, CONFIG._replace(steps=90, rate_weight=weight))
        with torch.no_grad():
            latents = learner.transform.analyse(sides[0].carry.float())
        sizes.append(float(latents.abs().mean()))
    assert sizes[1] < 0.8 * sizes[0]


def test_the_validation_loss_falls_by_training_and_draws_nothing(network, sides):
    """It is the same twice, and lower after a round."""
    learner = learner_of(sides)
    before = [validation_loss(learner, network, 1, sides[0], 1e-3) for _ in range(2)]
    assert before[0] == before[1]
    train_round(learner, network, 1, sides, CONFIG._replace(steps=100))
    assert validation_loss(learner, network, 1, sides[0], 1e-3) < 0.9 * before[0]


def test_rounds_go_on_while_they_gain(train, monkeypatch, tmp_path):
    """The first that gains less than 3 % is the last; one that loses is undone."""
    losses = iter([10.0, 8.0, 7.99, 5.0, 6.0, 3.0, 2.0, 1.0, 0.5, 0.4, 0.3, 0.2])
    monkeypatch.setattr(module, "validation_loss", lambda *_: next(losses))
    train(tmp_path)
    saved = [torch.load(tmp_path / f"block{n}.pt") for n in (1, 2, 3)]
    assert [(each["rounds"], each["loss"]) for each in saved] == [(3, 7.99), (2, 5.0), (6, 0.3)]
    assert next(losses) == 0.2


def test_a_run_that_stopped_goes_on_as_if_it_had_not(train, folder, tmp_path, monkeypatch):
    """Stopped after the first round of block 2, it ends with the weights of an unbroken run."""

    def stop(path, config, progress):
        write(path, config, progress)
        if path.name == "block2.pt":
            raise KeyboardInterrupt

    write = module._write
    monkeypatch.setattr(module, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    monkeypatch.setattr(module, "_write", write)
    kept = (tmp_path / "block1.pt").stat().st_mtime_ns
    train(tmp_path)
    assert (tmp_path / "block1.pt").stat().st_mtime_ns == kept
    for number in (1, 2, 3):
        broken, whole = (torch.load(each / f"block{number}.pt") for each in (tmp_path, folder))
        assert broken["rounds"] == whole["rounds"]
        for name, tensor in whole["learner"].items():
            assert torch.equal(broken["learner"][name], tensor)


def test_transforms_trained_otherwise_are_refused(train, folder):
    """By other steps, another rate or another network."""
    for change in ({"steps": 13}, {"rate_weight": 0.5}, {"network": "8"}, {"seed": 1}):
        with pytest.raises(DataError, match="use the same settings or another folder"):
            train(folder, CONFIG._replace(**change))


def test_a_damaged_file_is_named(train, tmp_path):
    """With what to do about it."""
    (tmp_path / "block1.pt").write_bytes(b"PK\3\4 nothing")
    with pytest.raises(DataError, match=r"block1\.pt is damaged .* delete it"):
        train(tmp_path)


def test_the_network_is_left_as_it_is(network, folder):
    """No weight of it gets a gradient, and it stays in eval mode."""
    assert folder.is_dir()
    assert not network.training
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())


def test_the_rate_is_that_of_a_laplace_distribution():
    """Bits of whole latents are those of its unit intervals, by scipy."""
    stats = pytest.importorskip("scipy.stats")
    values = torch.arange(-6.0, 7.0)
    learner = Learner(3)
    found = learner.bits(values.expand(1, LATENTS, 1, -1))[0, 0, 0].detach()
    laplace = stats.laplace(scale=float(learner.log_width.detach().exp()[0]) + 1e-3)
    expected = -torch.log2(
        torch.from_numpy(laplace.cdf(values + 0.5) - laplace.cdf(values - 0.5)).float()
    )
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_latents_left_out_cost_nothing(network, sides):
    """With the first segment alone, the others have no part in the loss."""
    learner = learner_of(sides).eval()
    changed = copy.deepcopy(learner)
    changed.transform.analysis.weight.data[ENDS[1] :] *= 3
    batch = sides[0]._replace(carry=sides[0].carry.float())
    with torch.no_grad():
        first, same = (each(network, 1, batch, ENDS[1], 1e-3) for each in (learner, changed))
        whole, other = (each(network, 1, batch, LATENTS, 1e-3) for each in (learner, changed))
    assert first == same
    assert whole != other


def test_crossings_are_what_the_network_says(network, splits, images):
    """At every partition: carries, the exit before and the last exit, as they are and mirrored."""
    for partition, both in enumerate(crossings(network, splits.train), start=1):
        for side, seen in zip(both, (images, images.flip(3)), strict=True):
            state = network.start(seen)
            for block in range(1, partition + 1):
                state = network.advance(state, block)
            torch.testing.assert_close(side.carry.float(), state.carry, atol=0.02, rtol=0.01)
            torch.testing.assert_close(side.logits, state.logits, atol=0.05, rtol=0.02)
            torch.testing.assert_close(side.taught, network(seen)[-1], atol=1e-3, rtol=1e-3)


def test_digits_are_not_mirrored(network, splits):
    """Where training may not mirror images, they cross as they are only."""
    upright = splits.train._replace(mirrored=False)
    assert [len(both) for both in crossings(network, upright)] == [1, 1, 1]
