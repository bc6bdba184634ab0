import pytest
import torch

from rl.sacd.alexnet import EXITS, LAYERS, AlexNet, run
from xpi_ray.errors import PlanError


@pytest.fixture(scope="module")
def network():
    """Untrained, with statistics of batch norms that matter."""
    torch.manual_seed(0)
    network = AlexNet()
    with torch.no_grad():
        network(torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8))
    return network.eval()


@pytest.fixture(scope="module")
def images():
    """Four of noise."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)


def test_the_exits_are_as_deep_as_in_the_paper(network):
    """9, 12 and 20 layers."""
    assert tuple(len(network.path(exit_)) for exit_ in EXITS) == LAYERS == (9, 12, 20)


@pytest.mark.parametrize("exit_", EXITS)
def test_the_layers_of_a_path_give_the_exits_answer(network, images, exit_):
    """One by one they are what one call gives."""
    with torch.inference_mode():
        alone = run(network.path(exit_), network.normalise(images))
        assert torch.equal(alone, network(images)[exit_ - 1])


@pytest.mark.parametrize(("layer", "exits"), [(0, 3), (6, 3), (7, 2), (8, 2), (9, 1), (19, 1)])
def test_resuming_gives_the_exits_that_are_still_ahead(network, images, layer, exits):
    """From whatever layer of the trunk, the answers are those of one call."""
    with torch.inference_mode():
        values = run(network.trunk[:layer], network.normalise(images))
        found, whole = network.resume(values, layer), network(images)
    assert len(found) == exits
    for own, expected in zip(found, whole[-exits:], strict=True):
        assert torch.allclose(own, expected, atol=1e-5)


def test_folding_changes_no_answer(network, images):
    """Batch norms vanish into convolutions."""
    folded = AlexNet()
    folded.load_state_dict(network.state_dict())
    folded.fold()
    with torch.inference_mode():
        for own, expected in zip(folded(images), network(images), strict=True):
            assert torch.allclose(own, expected, atol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())


@pytest.mark.parametrize("exit_", [0, 4])
def test_an_unknown_exit_is_named(network, exit_):
    """The message tells the range."""
    with pytest.raises(PlanError, match=rf"1\.\.3, got {exit_}"):
        network.path(exit_)
