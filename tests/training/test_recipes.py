import copy

import pytest
import torch

from xpi_ray.errors import TrainingError
from xpi_ray.networks.architectures import lite12
from xpi_ray.networks.plain import PlainNetwork
from xpi_ray.networks.trunk import TrunkNetwork
from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.training.objectives import CrossEntropy, Distilled
from xpi_ray.training.recipes import RECIPES, Recipe, recipe
from xpi_ray.training.trainer import Trainer, TrainingConfig


def quick(name):
    """The recipe of that name, with reference networks that are hardly fitted."""
    chosen = recipe(name)
    if chosen.manipulation is None:
        return chosen
    manipulation = chosen.manipulation.model_copy(update={"reference_steps": 2})
    return chosen.model_copy(update={"manipulation": manipulation})


@pytest.mark.parametrize("front", [0, 1])
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains(name, front, fresh_network, separable):
    """Its objective gets ready, and its loss reaches every weight of the first block."""
    objective = quick(name).objective(fresh_network)
    objective.begin(fresh_network, front, separable.train, 0, 0.0)
    fresh_network.train()
    objective.train()
    loss = objective(fresh_network, *separable.train[:2])
    loss.backward()
    assert loss.isfinite()
    block = fresh_network.block(1)
    weights = [block.extractor.conv[0].weight, block.branch.classifier.weight]
    assert all(weight.grad.isfinite().all() for weight in weights)
    assert all((weight.grad != 0).any() for weight in weights)


@pytest.mark.parametrize("name", RECIPES)
def test_blocks_take_turns_where_the_recipe_says_so(name, fresh_network):
    """All blocks' turn comes first, unless they are trained; other recipes have one turn only."""
    chosen = recipe(name)
    turns = chosen.turns(fresh_network, 8, trained=False)
    assert turns[-1] == pytest.approx(8)
    if not chosen.front_to_back:
        assert len(turns) == len(chosen.turns(fresh_network, 8, trained=True)) == 1
        return
    assert len(turns) == 5
    assert turns[0] > 0
    assert chosen.turns(fresh_network, 8, trained=True)[0] == 0


def test_a_teacher_takes_the_place_of_the_recipes_own(fresh_network):
    """Else exits learn from the labels, or from the last exit."""
    assert isinstance(Recipe().objective(fresh_network).prediction, CrossEntropy)
    for chosen in (Recipe(distilled=True), Recipe(distilled=True, front_to_back=True)):
        prediction = chosen.objective(fresh_network).prediction
        assert isinstance(prediction, Distilled)
        assert prediction.teacher is None
    taught = Distilled(torch.nn.Identity())
    for chosen in RECIPES.values():
        assert chosen.objective(fresh_network, taught).prediction is taught


def test_only_a_recipe_with_quantisation_learns_centres(fresh_network):
    """The bundle of any other has none."""
    for chosen in RECIPES.values():
        centres = chosen.objective(fresh_network).centres()
        assert bool(centres) == chosen.quantized
        assert all((values.diff() >= 0).all() for values in centres.values())


@pytest.mark.parametrize("name", RECIPES)
def test_a_network_of_one_block_trains(name, spec, separable, tmp_path):
    """It has no carry to quantise and no channels to tell apart, but a turn like any other."""
    torch.manual_seed(5)
    network = XpiNetwork(spec.model_copy(update={"blocks": spec.blocks[-1:]}))
    before = copy.deepcopy(network.state_dict())
    objective = quick(name).objective(network)
    turns = recipe(name).turns(network, 2, trained=False)
    config = TrainingConfig(epochs=2, batch_size=32, peak_learning_rate=0.1)
    trainer = Trainer(network, objective, config, tmp_path, turns=turns)
    assert len(trainer.run(separable.train, separable.validation)) == 1
    assert objective.centres() == {}
    for part in ("extractor.conv.0", "branch.classifier"):
        weight = network.state_dict()[f"blocks.0.{part}.weight"]
        assert weight.isfinite().all()
        assert not torch.equal(weight, before[f"blocks.0.{part}.weight"])


def test_a_trunk_trains_without_mapping(separable, tmp_path):
    """Getting block 1 ready changes nothing of the trunk; then all trains that is not frozen."""
    torch.manual_seed(5)
    network = TrunkNetwork(lite12(5, (10, 6), trunk_size=32))
    network.freeze_trunk(8)
    objective = quick("xai_quantized").objective(network)
    before = copy.deepcopy(network.state_dict())
    objective.begin(network, 1, separable.train, 0, 0.0)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    config = TrainingConfig(epochs=1, batch_size=80, peak_learning_rate=0.1)
    trainer = Trainer(network, objective, config, tmp_path, turns=(0.0, 1.0))
    trainer.run(separable.train, separable.validation)
    after = network.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    for number in range(12):
        parts = {name for name in after if name.startswith(f"blocks.{number}.extractor.part.")}
        moved = {name for name in parts if not torch.equal(after[name], before[name])}
        assert bool(moved) == (number >= 8)
    for name in ("blocks.0.extractor.fresh.0.weight", "blocks.0.branch.classifier.weight"):
        assert not torch.equal(after[name], before[name])


@pytest.mark.parametrize("name", RECIPES)
def test_what_goes_on_with_a_trained_network_keeps_its_carries(name, fresh_network, separable):
    """All blocks train together, judged and quantised as before; importance is left alone."""
    chosen = recipe(name)
    objective = chosen.joint().objective(fresh_network)
    assert type(objective.prediction) is type(chosen.prediction())
    assert len(chosen.joint().turns(fresh_network, 8, trained=False)) == 1
    assert bool(objective.centres()) == chosen.quantized
    if chosen.quantized:
        assert objective.manipulation is None
        assert objective.entropy_weight == chosen.entropy_weight
        objective.begin(fresh_network, 0, separable.train, 0, 0.0)
        quantised = []
        objective.quantization.register_forward_hook(lambda *call: quantised.append(call))
        objective(fresh_network, *separable.train[:2]).backward()
        assert len(quantised) == 1
        weight = fresh_network.block(1).extractor.conv[0].weight
        assert (weight.grad != 0).any()


def test_a_reference_network_may_be_chosen(fresh_network):
    """It reads the features of every block; all else is the recipe's."""
    objective = recipe("xai_quantized", "torch.nn:Identity").objective(fresh_network)
    assert len(objective.references) == 3
    for reference in objective.references.values():
        assert any(isinstance(module, torch.nn.Identity) for module in reference.modules())
    back = recipe("xai_quantized", "torch.nn:Identity").manipulation.model_copy(
        update={"reference": "compact"}
    )
    assert back == recipe("xai_quantized").manipulation


@pytest.mark.parametrize("name", [n for n, chosen in RECIPES.items() if not chosen.manipulation])
def test_a_recipe_without_manipulation_has_no_reference(name):
    """It refuses one, and tells which recipes take it."""
    with pytest.raises(TrainingError, match=rf"'{name}' moves no importance .* one of xai_skew"):
        recipe(name, "compact")


def test_an_unknown_recipe_lists_those_there_are():
    """A misspelt name is answered with all names."""
    with pytest.raises(TrainingError, match=r"'xia'; expected one of plain_joint, .*xai"):
        recipe("xia")


@pytest.mark.parametrize("name", RECIPES)
def test_plain_networks_are_trained_by_what_looks_into_no_block(name, plain_spec, separable):
    """Their exits all learn; recipes about Xpi blocks are refused, and those that fit are named."""
    torch.manual_seed(5)
    network, chosen = PlainNetwork(plain_spec), recipe(name)
    if name not in ("plain_joint", "distilled"):
        with pytest.raises(TrainingError, match=r"Xpi blocks .* one of plain_joint, distilled$"):
            chosen.objective(network)
        return
    for trained in (network, network.keeping(())):
        assert chosen.turns(trained, 8, trained=False) == (8,)
        objective = chosen.objective(trained)
        objective(trained, *separable.train[:2]).backward()
        assert all(weight.grad.isfinite().all() for weight in trained.parameters())


def test_a_single_exit_has_all_the_weight(plain_spec, separable):
    """The loss is its cross-entropy and nothing else."""
    torch.manual_seed(5)
    network = PlainNetwork(plain_spec).eval().keeping(())
    images, labels, _ = separable.train
    (logits,) = network(images)
    expected = torch.nn.functional.cross_entropy(logits, labels)
    assert torch.equal(recipe("plain_joint").objective(network)(network, images, labels), expected)
