import copy

import pytest
import torch
from rich.progress import Progress

from benchmarks import deepcod
from xpi_ray.compression.deepcod import CENTRES, DeepCod
from xpi_ray.networks.block import BlockSpec
from xpi_ray.training.data import Split


@pytest.fixture(scope="module")
def frozen(spec, make_network):
    """A network whose carry after block 1 has sizes that halve and double."""
    blocks = (BlockSpec(channels=10, branch_channels=2, stride=2), *spec.blocks[1:])
    changed = spec.model_copy(update={"image_size": (16, 16), "blocks": blocks})
    return make_network(changed).prepare().requires_grad_(False)


@pytest.fixture(scope="module")
def split():
    """Images of noise."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (128, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return Split(images, torch.arange(128) % 5)


def test_what_arrives_has_the_carrys_shape():
    """Half the height and width cross the link, of few channels and 8 values."""
    codec = DeepCod(24, 3).eval()
    carry = torch.randn(2, 24, 8, 8)
    assert codec(carry).shape == carry.shape
    sent = deepcod.symbols_of(codec, carry)
    assert sent.shape == (2, 3, 4, 4)
    assert sent.max() < CENTRES


def test_known_answers_are_the_networks(frozen, split):
    """The last exit is taught as the network has it in one call, mirrored images too."""
    sides = deepcod.crossing(frozen, split._replace(mirrored=True), 1)
    for side, images in zip(sides, (split.images, split.images.flip(3)), strict=True):
        assert torch.allclose(side.taught, frozen(images)[-1], atol=1e-4)


def test_training_brings_the_loss_down_and_judges_by_validation(frozen, split):
    """A few epochs on few images: the network's own answers are met better than at first."""
    (known,) = deepcod.crossing(frozen, split._replace(mirrored=False), 1)
    known = known.select(torch.arange(len(known.labels)))
    scale = float(known.carry.square().mean())
    torch.manual_seed(0)
    raw = DeepCod(known.carry.shape[1], 4)
    with torch.no_grad():
        raw.centres.initialise(raw.analyse(known.carry))
        before = deepcod.loss_of(raw, frozen, known, 1, scale)
        with Progress() as progress, torch.enable_grad():
            codec = deepcod.train(frozen, 1, 4, [known, known], known, 30, progress)
        assert deepcod.loss_of(codec.eval(), frozen, known, 1, scale) < before
    row = deepcod.judge(codec, frozen, known, known, 1)
    assert row["bytes_context"] > 0
    assert row["symbols"] == 4 * 16


def test_levels_of_the_ladder_are_judged_on_all_images(bundle, splits):
    """From the third on, a row each; the third's accuracy is near that of exact carries."""
    network = copy.deepcopy(bundle.network).prepare()
    (known,) = deepcod.crossing(network, splits.test._replace(mirrored=False), 1)
    rows = list(deepcod.judge_ladder(bundle, network, known, 1))
    assert [row["level"] for row in rows] == list(range(deepcod.FIRST_LEVEL, bundle.ladder.levels))
    sizes = [row["bytes_mean"] for row in rows]
    assert sizes[0] > sizes[1] > 0
    assert sizes[2] > sizes[3] > 0
    exact = float((known.taught.argmax(1) == known.labels).float().mean())
    assert rows[0]["accuracy"] == pytest.approx(exact, abs=0.2)
