import copy
from itertools import pairwise
from statistics import fmean

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from xpi_ray.explain.importance import disorder, skewness
from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.training import stages
from xpi_ray.training.losses import Manipulation, counted_shares
from xpi_ray.training.objectives import CrossEntropy, rising_weights
from xpi_ray.training.quantization import FIRST_HARDNESS, CarryQuantization
from xpi_ray.training.references import (
    block_features,
    fit_reference,
)
from xpi_ray.training.stages import BLOCKS_A_BATCH, LAST_HARDNESS, Staged, turns
from xpi_ray.training.trainer import Trainer, TrainingConfig

QUICK = Manipulation(reference_steps=5)
FOLLOWED = QUICK.model_copy(update={"reference_follows": True, "map_channels": False})
STATISTIC = "1.body.last.1.running_mean"
TURNS = (0.4, 1.0, 1.6, 2.2, 3.0)  # all blocks, then 1 to 4; five batches an epoch


def copy_of(module):
    """Every weight and statistic, as it is now."""
    return copy.deepcopy(module.state_dict())


def same(one, other):
    """Whether two states agree to the last bit."""
    return all(torch.equal(one[name], other[name]) for name in one)


@given(blocks=st.integers(1, 20), epochs=st.integers(1, 100), share=st.floats(0, 0.9))
def test_every_block_gets_its_turn(blocks, epochs, share):
    """All blocks' turn lasts its share, the others are equally long and end with the training."""
    ends = turns(blocks, epochs, share)
    assert len(ends) == blocks + 1
    assert ends[0] == pytest.approx(epochs * share)
    lengths = [end - start for start, end in pairwise(ends)]
    assert lengths == pytest.approx([epochs * (1 - share) / blocks] * blocks)
    assert ends[-1] == pytest.approx(epochs)


class Watching(Staged):
    """Notes, before each batch, whose turn it is and what every block is."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.seen = []

    def forward(self, network, images, labels):
        """Note, then run."""
        blocks = [copy_of(block) for block in network.blocks]
        self.seen.append((int(self.front), blocks))
        return super().forward(network, images, labels)


@pytest.fixture
def trained(fresh_network, separable, tmp_path):
    """The small network and its objective, after a training in which all blocks took turns."""
    objective = Watching(fresh_network, CrossEntropy(), QUICK, quantization=CarryQuantization(4))
    config = TrainingConfig(epochs=3, batch_size=32, peak_learning_rate=0.1)
    trainer = Trainer(fresh_network, objective, config, tmp_path, turns=TURNS)
    trainer.run(separable.train, separable.validation)
    return fresh_network, objective


def test_a_block_is_frozen_after_its_turn(trained):
    """Not a bit of it changes any more, statistics included; those behind it go on learning."""
    network, objective = trained
    final = [copy_of(block) for block in network.blocks]
    assert [front for front, _ in objective.seen] == [0] * 2 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 4
    for number in range(1, 5):
        later = [blocks[number - 1] for front, blocks in objective.seen if front > number]
        assert all(same(state, final[number - 1]) for state in later)
        for front in range(1, number + 1):
            turn = [blocks[number - 1] for seen, blocks in objective.seen if seen == front]
            for name in ("extractor.conv.0.weight", "extractor.conv.1.running_mean"):
                assert not torch.equal(turn[0][name], turn[-1][name])


def test_thawed_blocks_train_again(trained):
    """After all turns every weight can be made trainable."""
    network, _ = trained
    assert {p.requires_grad for p in network.block(3).parameters()} == {False}
    network.thaw()
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_block_is_prepared_once_in_its_turn(fresh_network, separable, monkeypatch):
    """Its reference is fitted as it comes to the front, not at every epoch, nor after a resume."""
    fitted = []

    def fit(reference, network, block, *args):
        fitted.append(block)
        fit_reference(reference, network, block, *args)

    monkeypatch.setattr(stages, "fit_reference", fit)
    objective = Staged(fresh_network, CrossEntropy(), QUICK)
    for seed, front in enumerate([0, 0, 1, 1, 2]):
        objective.begin(fresh_network, front, separable.train, seed, 0.0)
    again = Staged(fresh_network, CrossEntropy(), QUICK)
    again.load_state_dict(objective.state_dict())
    for seed, front in enumerate([2, 3, 4, 4], start=4):
        again.begin(fresh_network, front, separable.train, seed, 0.0)
    assert fitted == [1, 2, 3]  # the last block reads all and needs none


@pytest.mark.parametrize(("block", "mapped"), [(1, True), (2, False), (3, True)])
def test_a_block_is_mapped_if_it_can_be(make_network, spec, separable, block, mapped):
    """Only the filters of the front block's extractor change; those of a residual one do not."""
    network = make_network(spec)
    before = copy_of(network)
    Staged(network, CrossEntropy(), QUICK).begin(network, block, separable.train, 0, 0.0)
    after = network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert bool(changed) == mapped
    assert all(name.startswith(f"blocks.{block - 1}.extractor.conv.") for name in changed)


@pytest.mark.parametrize("front", [0, 1])
def test_a_fitted_reference_stays_as_it_is(fresh_network, separable, front):
    """Training steps leave it no gradient and move no statistic, whatever mode is asked for."""
    objective = Staged(fresh_network, CrossEntropy(), QUICK, together=True)
    objective.begin(fresh_network, front, separable.train, 0, 0.0)
    before = copy_of(objective.references)
    optimizer = torch.optim.SGD([*fresh_network.parameters(), *objective.parameters()], lr=0.1)
    optimizer.zero_grad()
    fresh_network.train()
    assert objective.train().training
    for _ in range(3):
        loss = objective(fresh_network, separable.train.images[:32], separable.train.labels[:32])
        loss.backward()
        optimizer.step()
    assert same(before, objective.references.state_dict())
    assert all(parameter.grad is None for parameter in objective.references.parameters())
    assert not any(module.training for module in objective.references.modules())


def test_a_reference_that_follows_learns_for_itself(fresh_network, spec, separable):
    """Its gradient is that of its own cross-entropy alone, and the network's is without it."""
    images, labels = separable.train.images[:32], separable.train.labels[:32]
    gradients = []
    for follows in (False, True):
        torch.manual_seed(6)
        network = copy.deepcopy(fresh_network)
        manipulation = FOLLOWED.model_copy(update={"reference_follows": follows})
        objective = Staged(network, CrossEntropy(), manipulation)
        objective.begin(network, 1, separable.train, 0, 0.0)
        network.train()
        before = copy_of(objective.references)
        objective.train()(network, images, labels).backward()
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
    reference = objective.references["1"]
    found = [parameter.grad.clone() for parameter in reference.parameters()]
    features = network.features(network.start(images).carry, 1).detach()
    assert not reference.training
    reference.zero_grad()
    F.cross_entropy(reference.train()(features), labels).backward()
    for parameter, gradient in zip(reference.parameters(), found, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-6)
        assert (gradient != 0).any()
    moved = objective.references.state_dict()
    assert not torch.equal(moved[STATISTIC], before[STATISTIC])


def test_references_that_follow_still_know_the_features(spec, separable, tmp_path, accuracy_of):
    """After all blocks trained together they read them far better than those left as fitted."""
    found = []
    for follows in (False, True):
        torch.manual_seed(5)
        network = XpiNetwork(spec)
        manipulation = FOLLOWED.model_copy(
            update={"reference_follows": follows, "weight": 0.1, "reference_steps": 20}
        )
        objective = Staged(network, CrossEntropy(), manipulation, together=True)
        config = TrainingConfig(epochs=5, batch_size=32, peak_learning_rate=0.1)
        Trainer(network, objective, config, tmp_path).run(separable.train, separable.validation)
        found.append(
            [
                accuracy_of(reference, network, int(number), separable.validation)
                for number, reference in objective.references.items()
            ]
        )
    assert all(followed > frozen for frozen, followed in zip(*found, strict=True))
    assert fmean(found[1]) > fmean(found[0]) + 0.1


def test_a_batch_moves_importance_in_a_few_blocks_only(make_network, spec, separable):
    """While all train together each batch draws other ones, so that every block has its batches."""
    blocks = (spec.blocks[0], *[spec.blocks[1]] * 6, spec.blocks[3])
    network = make_network(spec.model_copy(update={"blocks": blocks})).requires_grad_(True)
    manipulation = FOLLOWED.model_copy(update={"reference_steps": 1})
    drawn = []
    for _ in range(2):
        objective = Staged(network, CrossEntropy(), manipulation, together=True)
        objective.begin(network, 0, separable.train, 0, 0.0)
        for _ in range(20):
            objective.zero_grad()
            objective(network, separable.train.images[:8], separable.train.labels[:8]).backward()
            learning = objective.references.items()
            drawn.append(
                {n for n, each in learning if any(p.grad is not None for p in each.parameters())}
            )
    assert {len(numbers) for numbers in drawn} == {BLOCKS_A_BATCH}
    assert set().union(*drawn) == set("1234567")
    assert drawn[:20] == drawn[20:]  # the epoch's seed fixes them


@pytest.mark.parametrize("front", [0, 1, 3, 4])
def test_the_front_exit_weighs_as_much_as_all_behind(make_network, spec, separable, front):
    """By hand: half the front exit's loss, half the rising mean of the later ones."""
    network = make_network(spec)
    images, labels = separable.validation[:2]
    losses = CrossEntropy()(network(images), images, labels)
    expected = losses @ rising_weights(4)  # all blocks' turn
    if front == 4:
        expected = losses[3]
    elif front:
        expected = (losses[front - 1] + losses[front:] @ rising_weights(4 - front)) / 2
    objective = Staged(network, CrossEntropy())
    objective.begin(network, front, separable.train, 0, 0.0)
    assert objective(network, images, labels).item() == pytest.approx(expected.item())


@pytest.mark.parametrize(
    ("front", "together", "blocks"),
    [(2, False, [2]), (2, True, [2]), (0, False, []), (0, True, [1, 2, 3]), (4, False, [])],
)
def test_importance_is_in_the_loss_of_the_front_block(
    make_network, spec, separable, front, together, blocks
):
    """A heavier manipulation adds in proportion: of the front block, or of all if so wished."""
    network = make_network(spec)
    images, labels = separable.validation[:2]
    found = []
    for weight in (0.5, 1.5):
        torch.manual_seed(1)
        manipulation = QUICK.model_copy(update={"weight": weight, "map_channels": False})
        objective = Staged(network, CrossEntropy(), manipulation, together)
        objective.begin(network, front, separable.train, 0, 0.0)
        found.append(objective(network, images, labels).item())
    lacks = 0.0
    for block in blocks:
        features, k = block_features(network, images, block), spec.blocks[block - 1].branch_channels
        shares = counted_shares(QUICK, objective.references[str(block)], features, labels)
        lacks += (0.8 - skewness(shares, k)).relu().mean() + disorder(shares, k).relu().mean()
    assert found[1] - found[0] == pytest.approx(float(lacks), rel=1e-3, abs=1e-6)


class Crossings(CarryQuantization):
    """Notes which blocks' carries it gets."""

    def forward(self, carry, block, generator=None):
        """Note, then quantise."""
        self.seen = {*getattr(self, "seen", ()), block}
        return super().forward(carry, block, generator)


@pytest.mark.parametrize("front", [0, 1, 3, 4])
def test_batches_cross_the_link_everywhere_in_every_turn(fresh_network, separable, front):
    """At frozen blocks too, lest those behind forget it; the last block has no carry."""
    quantization = Crossings(4)
    objective = Staged(fresh_network, CrossEntropy(), quantization=quantization)
    objective.begin(fresh_network, front, separable.train, 0, 0.0)
    for _ in range(40):
        objective(fresh_network, *separable.train[:2])
    assert quantization.seen == {1, 2, 3}


def test_centres_are_spread_and_harden(make_network, spec, separable):
    """Those of carries that still change are fitted anew, those of frozen blocks stay."""
    network, quantization = make_network(spec), CarryQuantization(4)
    objective = Staged(network, CrossEntropy(), quantization=quantization)
    for front, progress, fitted in (
        (0, 0.0, {1, 2, 3}),
        (0, 0.4, {1, 2, 3}),
        (0, 0.6, set()),
        (1, 0.6, {1, 2, 3}),
        (1, 0.7, set()),
        (3, 0.8, {2, 3}),
        (4, 1.0, {3}),
    ):
        for number in (1, 2, 3):
            nn.init.constant_(quantization.centres(number, 8).values, -1)
        objective.begin(network, front, separable.train, 0, progress)
        found = {n for n in (1, 2, 3) if (quantization.centres(n, 8).values >= 0).all()}
        assert found == fitted
        rise = progress * (LAST_HARDNESS - FIRST_HARDNESS)
        assert quantization.hardness == pytest.approx(FIRST_HARDNESS + rise)


def test_the_entropy_of_a_crossing_carry_can_be_priced(make_network, spec, separable):
    """A weight adds the bits a value of the very carry that crosses."""
    network = make_network(spec).requires_grad_(True)
    losses = []
    for weight in (0.0, 0.5):
        quantization = CarryQuantization(4)
        objective = Staged(
            network, CrossEntropy(), quantization=quantization, entropy_weight=weight
        )
        objective.begin(network, 4, separable.train, 0, 0.0)
        losses.append(objective(network, *separable.validation[:2]))
    state, bits = network.start(separable.validation.images), []
    for number in (1, 2, 3):
        state = network.advance(state, number)
        bits.append(quantization.entropy_bits(state.carry, number).item())
    assert (losses[1] - losses[0]).item() in [
        pytest.approx(0.5 * of_one, rel=1e-4) for of_one in bits
    ]


@pytest.fixture(scope="module")
def manipulated(spec, separable, tmp_path_factory, make_reference):
    """Shares of block 1 after trainings that differ in the weight of its losses alone.

    By weight: under the training's reference and under one that is fitted afterwards.
    """

    def train(weight):
        torch.manual_seed(5)
        network = XpiNetwork(spec)
        manipulation = Manipulation(weight=weight, reference_steps=40, map_channels=False)
        objective = Staged(network, CrossEntropy(), manipulation)
        config = TrainingConfig(epochs=6, batch_size=32, peak_learning_rate=0.1, seed=4)
        folder = tmp_path_factory.mktemp("run")
        trainer = Trainer(network, objective, config, folder, turns=(2.0, 6.0))
        trainer.run(separable.train, separable.validation)
        images, labels = separable.validation[:2]
        features = block_features(network, images, 1)
        fresh = make_reference(network, 1, seed=7)
        fit_reference(fresh, network, 1, separable.train, torch.Generator(), steps=40)
        return [
            counted_shares(manipulation, reference, features, labels)
            for reference in (objective.references["1"], fresh)
        ]

    return {weight: train(weight) for weight in (1e-9, 2.0)}


@pytest.mark.parametrize("reference", [0, 1], ids=["own", "fresh"])
def test_the_losses_move_importance_to_the_branch(manipulated, reference):
    """Skewness is far higher, and disorder halved, against the same training without them."""
    without, with_losses = manipulated[1e-9][reference], manipulated[2.0][reference]
    assert min(len(without), len(with_losses)) >= 8
    assert skewness(with_losses, k=4).mean() > skewness(without, k=4).mean() + 0.2
    assert disorder(with_losses, k=4).relu().mean() < 0.5 * disorder(without, k=4).relu().mean()
