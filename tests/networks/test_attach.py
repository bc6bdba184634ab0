import copy
import itertools

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from xpi_ray.errors import TrainingError
from xpi_ray.networks.attach import attach_exits, conv_parts
from xpi_ray.networks.backbones import ResNet50, Vgg16
from xpi_ray.networks.branched import BranchedNetwork, BranchedSpec
from xpi_ray.networks.graph import shapes_of
from xpi_ray.networks.resnet import CifarResNet
from xpi_ray.training.data import data_folder, take
from xpi_ray.training.trainer import exit_accuracies

COLOURS = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}
AS_IT_IS = {"mean": (0, 0, 0), "std": (1 / 255,) * 3}  # pixels of 0..255, for who normalises inside


def attach(model, size=(8, 6), classes=4, **options):
    """Attach exits, images of 8x6 and four classes unless said otherwise."""
    return attach_exits(model, num_classes=classes, image_size=size, **{**COLOURS, **options})


def noise(count, size):
    """Images of noise, uint8."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 3, *size), generator=generator, dtype=torch.uint8)


def randomised(model):
    """The model with weights and statistics that all matter, in eval mode."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval().requires_grad_(False)


def head(channels, classes=4):
    """Global pooling and a linear layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def ends(network):
    """The operations of the nodes that end blocks."""
    return [network.spec.graph.nodes[block.cut - 1].operation for block in network.spec.blocks]


class Residual(nn.Module):
    """Adds a body to its shortcut."""

    def __init__(self, body, shortcut):
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x):
        """Add."""
        return F.relu(self.body(x) + self.shortcut(x))


class Dense(nn.Module):
    """Puts what its body makes beside what it read."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        """Concatenate."""
        return torch.cat([x, self.body(x)], 1)


class Excited(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels):
        super().__init__()
        self.reduce = nn.Conv2d(channels, 2, 1)
        self.expand = nn.Conv2d(2, channels, 1)

    def forward(self, x):
        """Scale channels."""
        squeezed = F.adaptive_avg_pool2d(x, 1)
        return torch.sigmoid(self.expand(F.silu(self.reduce(squeezed)))) * x


def convolution(read, made, stride=1, groups=1):
    """Convolution, norm, activation."""
    return nn.Sequential(
        nn.Conv2d(read, made, 3, stride, 1, groups=groups, bias=False),
        nn.BatchNorm2d(made),
        nn.ReLU(inplace=True),
    )


@st.composite
def cnns(draw):
    """Any small CNN: its parts, the places for exits that there should be, and its classes."""
    channels, parts, places = 3, [], 0
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["plain", "residual", "dense", "excited", "pool", "depthwise"]))
        if kind == "plain":
            made = draw(st.integers(1, 5))
            parts.append(convolution(channels, made, stride=draw(st.integers(1, 2))))
            channels = made
        elif kind == "residual":
            made = draw(st.integers(1, 5))
            body = nn.Sequential(convolution(channels, made), nn.Conv2d(made, made, 1))
            same = made == channels
            parts.append(Residual(body, nn.Identity() if same else nn.Conv2d(channels, made, 1)))
            channels = made
        elif kind == "dense":
            parts.append(Dense(convolution(channels, 2)))
            channels += 2
        elif kind == "excited":
            parts.append(Excited(channels))
        elif kind == "pool":
            parts.append(nn.MaxPool2d(2, 2, ceil_mode=True))
        else:
            parts.append(convolution(channels, channels, groups=channels))
            parts.append(nn.Sequential(nn.Conv2d(channels, 3, 1), nn.Hardswish()))
            channels, places = 3, places + 1
        places += kind != "pool"
    assume(places)
    classes = draw(st.integers(2, 4))
    return nn.Sequential(*parts, head(channels, classes)), places, classes


@settings(max_examples=40)
@given(cnn=cnns(), size=st.tuples(st.integers(4, 9), st.integers(4, 9)), training=st.booleans())
def test_any_cnn_gets_an_exit_between_its_parts(cnn, size, training):
    """As many as it has parts that convolve; the last exit is its own, and it does not change."""
    model, places, classes = cnn
    randomised(model).train(training)
    before = copy.deepcopy(model.state_dict())
    network = attach(model, size, classes)
    assert network.training
    assert network.num_blocks == places + 1
    assert network.exits == tuple(range(1, places + 2))
    assert model.training == training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    images = noise(5, size)
    network.eval().requires_grad_(False)
    exits = network(images)
    expected = model.eval()(network.normalised(images).contiguous())
    assert torch.allclose(exits[-1], expected, atol=1e-4)
    again = BranchedNetwork(BranchedSpec.model_validate_json(network.spec.model_dump_json())).eval()
    again.load_state_dict(network.state_dict())
    for one, other in zip(exits, again(images), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(exits, again.prepare()(images), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_a_resnet_is_cut_between_its_residual_blocks_alone():
    """After the stem, and after the ReLU behind each sum."""
    network = attach(ResNet50(4, width=0.05), (16, 16))
    assert network.num_blocks == 1 + 16 + 1
    assert ends(network) == ["ReLU"] * 17
    nodes = network.spec.graph.nodes
    befores = [nodes[nodes[block.cut - 1].inputs[0] - 1].operation for block in network.spec.blocks]
    assert befores == ["BatchNorm2d", *["add"] * 16]
    network = attach(CifarResNet(3, 4), (32, 32), **AS_IT_IS)
    assert (network.num_blocks, ends(network)) == (1 + 9 + 1, ["relu"] * 10)


def test_a_vgg_has_an_exit_after_each_convolution():
    """EINet's 14; a pooling belongs to what is before it, where more than a point is left."""
    network = attach(Vgg16(4, width=0.05), (32, 32))
    assert network.num_blocks == 14
    pooled = {2, 4, 7, 10}  # and 13, whose pooling leaves one position
    expected = ["MaxPool2d" if number in pooled else "ReLU" for number in range(1, 14)]
    assert ends(network) == expected
    assert network.carry_shape(13) == (26, 2, 2)


def test_where_all_is_one_position_the_last_cut_counts():
    """There is no better one."""
    model = nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1), nn.MaxPool2d(2), nn.Conv2d(5, 6, 1), head(6))
    network = attach(model, (3, 3))
    assert [network.carry_shape(block) for block in (1, 2)] == [(5, 1, 1), (6, 1, 1)]


@pytest.mark.parametrize(
    ("exits", "cuts"),
    [
        (None, [0, 1, 2, 3]),
        (5, [0, 1, 2, 3]),
        (3, [2, 3]),
        (2, [2]),
        (1, []),
        ([], []),
        ([2, 4], [1, 3]),
    ],
)
def test_exits_are_where_they_are_wanted(exits, cuts):
    """At all places, at some, or so many evenly over the cost, which is mostly the third's here."""
    widths = (3, 2, 2, 16, 16)
    model = nn.Sequential(*(convolution(a, b) for a, b in itertools.pairwise(widths)), head(16))
    every = [block.cut for block in attach(model).spec.blocks]
    network = attach(model, exits=exits)
    assert [block.cut for block in network.spec.blocks] == [every[place] for place in cuts]
    assert network.exits == tuple(range(1, len(cuts) + 2))


@pytest.mark.parametrize(
    ("exits", "message"),
    [
        (0, "expected 1 to 3 exits, for one tensor carries everything in 2 places; got 0"),
        (4, "got 4"),
        ([0], r"some of the places 1..2, ascending, got \[0\]"),
        ([3], r"got \[3\]"),
        ([2, 1], r"got \[2, 1\]"),
        ([1, 1], r"got \[1, 1\]"),
    ],
)
def test_exits_that_cannot_be_are_refused(exits, message):
    """The message tells how many places there are."""
    model = nn.Sequential(convolution(3, 4), convolution(4, 4), head(4))
    with pytest.raises(TrainingError, match=message):
        attach(model, exits=exits)


def test_a_model_without_a_place_keeps_its_own_exit_if_that_is_asked_for():
    """A network of one block; by itself it is refused."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 6, 4))
    with pytest.raises(TrainingError, match="no place for an exit but its own"):
        attach(model)
    network = attach(model, exits=1).eval()
    images = noise(2, (8, 6))
    (found,) = network(images)
    assert torch.allclose(found, model(network.normalised(images).contiguous()), atol=1e-5)


class Odd(nn.Module):
    """A model that does what a function says."""

    def __init__(self, function):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.function = function

    def forward(self, images):
        """Do it."""
        return self.function(self.conv(images))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x.mean((2, 3)) - x.mean((0, 2, 3)), "answers otherwise than the model"),
        (lambda x: x.mean((2, 3)) + torch.rand(4), "answers otherwise than the model"),
        (lambda x: x.mean((2, 3))[:, :3], r"to logits \(1, 4\), got \(1, 3\)"),
        (lambda x: x, r"got \(1, 4, 6, 4\)"),
        (lambda x: x.mean((2, 3)) + torch.rand(2, 4), r"got \(2, 4\)"),
        (lambda x: torch.cat([x, torch.rand(2, 4, 6, 4)], 1), "cannot be a network of a bundle"),
        (lambda x: x.median(), "calls 'median'"),
    ],
)
def test_a_model_that_makes_no_network_is_refused(function, message):
    """Whatever is wrong with it is said before anything is trained."""
    with pytest.raises(TrainingError, match=message):
        attach(Odd(function))


def test_one_cut_is_kept_of_those_between_two_convolutions():
    """The last one (n, C, h, w), whatever comes between."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout2d(), nn.Conv2d(4, 4, 1),
        nn.Flatten(2), nn.Flatten(), nn.Linear(24, 4),
    )  # fmt: skip
    spec = attach(model).spec
    shapes = shapes_of(spec.graph, (8, 6))
    assert [block.cut for block in spec.blocks] == conv_parts(spec.graph, shapes) == [4, 5]


def test_a_published_network_keeps_its_accuracy(cifar10):
    """The CIFAR ResNet-20, its own normalisation and all; folded for serving, too."""
    path = data_folder() / "cifar10_resnet20_akamaster.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    model = CifarResNet.load(path)
    network = attach(model, (32, 32), 10, **AS_IT_IS)
    split = take(cifar10.test, 300)
    with torch.no_grad():
        known = (model(split.images).argmax(1) == split.labels).float().mean().item()
    assert known > 0.88
    assert exit_accuracies(network, split, batch_size=100)[-1] == pytest.approx(known, abs=0.004)
    single = network.keeping(()).prepare()
    assert exit_accuracies(single, split, batch_size=100) == [pytest.approx(known, abs=0.004)]


def test_a_network_of_a_package_gets_exits():
    """EfficientNet-Lite0, whose convolutions compute their padding: one after each MBConv."""
    package = pytest.importorskip("efficientnet_lite_pytorch")
    torch.manual_seed(0)
    model = package.EfficientNet.from_name("efficientnet-lite0", num_classes=7)
    network = attach(model, (64, 64), 7)
    assert set(ends(network)) <= {"ReLU6", "BatchNorm2d", "add"}
    assert network.spec.graph.nodes[0].operation == "ZeroPad2d"
    channels = [network.carry_shape(block)[0] for block in range(1, network.num_blocks)]
    assert [channels.count(wide) for wide in (16, 24, 40, 80, 112, 320)] == [1, 2, 2, 3, 3, 1]
    assert (channels[0], channels[-1]) == (32, 1280)
