import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from xpi_ray.errors import TrainingError
from xpi_ray.networks.efficientnet import SameConv
from xpi_ray.networks.graph import Graph, GraphSpec
from xpi_ray.networks.lifting import LIFTED
from xpi_ray.networks.operations import FUNCTIONS, LAYERS
from xpi_ray.networks.resnet import CifarResNet
from xpi_ray.networks.tracing import trace

SIZE = (9, 6)


class Functional(nn.Module):
    """A convolution to four channels, then a function of what it makes."""

    def __init__(self, function):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.scale = nn.Parameter(torch.rand(4, 1, 1) + 0.5)
        self.register_buffer("shift", torch.rand(4, 1, 1))
        self.function = function

    def forward(self, images, target=None):
        """Return the function's value of features and itself."""
        assert target is None
        return self.function(self.conv(images), self)


def again(traced):
    """The network of a trace whose spec went through JSON."""
    graph = Graph(GraphSpec.model_validate_json(traced.spec.model_dump_json()))
    graph.load_state_dict(traced.weights)
    return graph.eval().requires_grad_(False)


def operations(model):
    """Trace a model, check that what comes back from JSON answers alike, and tell its nodes."""
    torch.manual_seed(0)
    model.eval().requires_grad_(False)
    traced = trace(model, SIZE)
    images = torch.randn(5, 3, *SIZE)
    expected, found = model(images.clone()), again(traced)(images)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-5)
    return [node.operation for node in traced.spec.nodes]


CALLS = {
    "add": lambda x, m: torch.add(x + 1, m.shift, alpha=2) + m.scale,
    "sub": lambda x, m: (x - 0.5).sub(m.shift),
    "rsub": lambda x, m: 1 - x,
    "mul": lambda x, m: 2 * x * m.scale * x,
    "div": lambda x, m: (x / 3).div(m.scale),
    "maximum": lambda x, m: torch.maximum(x, m.shift),
    "minimum": lambda x, m: x.minimum(m.shift),
    "matmul": lambda x, m: x.transpose(2, 3) @ x,
    "neg": lambda x, m: -x,
    "abs": lambda x, m: abs(x),
    "exp": lambda x, m: x.exp(),
    "sqrt": lambda x, m: x.abs().sqrt(),
    "rsqrt": lambda x, m: (x.abs() + 1).rsqrt(),
    "reciprocal": lambda x, m: 1 / (x.abs() + 1),
    "pow": lambda x, m: x**2,
    "clamp": lambda x, m: x.clamp(min=-0.2, max=0.3),
    "relu": lambda x, m: torch.relu(F.relu(x).relu()),
    "relu6": lambda x, m: F.relu6(x),
    "leaky_relu": lambda x, m: F.leaky_relu(x, 0.2),
    "elu": lambda x, m: F.elu(x, 0.7),
    "silu": lambda x, m: F.silu(x),
    "gelu": lambda x, m: F.gelu(x, approximate="tanh"),
    "mish": lambda x, m: F.mish(x),
    "sigmoid": lambda x, m: torch.sigmoid(F.sigmoid(x)),
    "tanh": lambda x, m: x.tanh(),
    "softplus": lambda x, m: F.softplus(x, 2),
    "hardswish": lambda x, m: F.hardswish(x),
    "hardsigmoid": lambda x, m: F.hardsigmoid(x),
    "hardtanh": lambda x, m: F.hardtanh(x, -0.5, 0.5),
    "softmax": lambda x, m: F.softmax(x, dim=1),
    "log_softmax": lambda x, m: x.log_softmax(1),
    "mean": lambda x, m: x.mean([2, 3]),
    "sum": lambda x, m: x.sum(dim=1, keepdim=True),
    "amax": lambda x, m: x.amax((2, 3)),
    "avg_pool2d": lambda x, m: F.avg_pool2d(x, 2, ceil_mode=True),
    "max_pool2d": lambda x, m: F.max_pool2d(x, 3, stride=2, padding=1),
    "adaptive_avg_pool2d": lambda x, m: F.adaptive_avg_pool2d(x, (2, None)),
    "adaptive_max_pool2d": lambda x, m: F.adaptive_max_pool2d(x, 2),
    "interpolate": lambda x, m: F.interpolate(x, size=x.shape[2], mode="bilinear"),
    "pad": lambda x, m: F.pad(x, (1, 0, 2, 1), value=0.5),
    "local_response_norm": lambda x, m: F.local_response_norm(x, 3, beta=0.5),
    "cat": lambda x, m: torch.cat([x, x.relu(), m.conv(x[:, :3])], dim=1),
    "permute": lambda x, m: x.permute(0, 2, 3, 1).transpose(1, 2),
    "slice": lambda x, m: x[:, 1:, ::2, -1] + x[..., 3:, None, 2, 1],
    "reshape": lambda x, m: x.view(x.size(0), -1).unsqueeze(1).flatten(1),
    "expand": lambda x, m: x.mean((2, 3), keepdim=True).expand_as(x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_comes_back_from_json(name):
    """Called as users call it, by operator, method or name, and with weights used directly."""
    assert name in operations(Functional(CALLS[name]))


LAYER_ARGUMENTS = {
    "Conv2d": {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": "same"},
    "Linear": {"in_features": 6, "out_features": 2, "bias": False},
    "BatchNorm2d": {"num_features": 4, "eps": 0.01},
    "GroupNorm": {"num_groups": 2, "num_channels": 4},
    "LayerNorm": {"normalized_shape": (9, 6)},
    "InstanceNorm2d": {"num_features": 4, "affine": True},
    "LocalResponseNorm": {"size": 3},
    "PReLU": {"num_parameters": 4},
    "Softmax": {"dim": 1},
    "LogSoftmax": {"dim": 1},
    "MaxPool2d": {"kernel_size": 2, "ceil_mode": True},
    "AvgPool2d": {"kernel_size": (2, 3), "count_include_pad": False},
    "AdaptiveAvgPool2d": {"output_size": (None, 2)},
    "AdaptiveMaxPool2d": {"output_size": 2},
    "ZeroPad2d": {"padding": (1, 0, 2, 3)},
    "ReflectionPad2d": {"padding": 2},
    "ReplicationPad2d": {"padding": 1},
    "Upsample": {"scale_factor": 2.0, "mode": "bilinear"},
}


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "Held"])
def test_a_layer_comes_back_from_json(name):
    """With its settings, weights and statistics."""
    torch.manual_seed(1)
    layer = LAYERS[name](**LAYER_ARGUMENTS.get(name, {}))
    for weight in (*layer.parameters(), *layer.buffers()):
        if weight.is_floating_point():
            nn.init.uniform_(weight, 0.2, 1.5)
    found = operations(nn.Sequential(nn.Conv2d(3, 4, 1), layer, nn.Identity()))
    assert found == ["Conv2d", name]


class Standardised(nn.Conv2d):
    """Standardises its weight before it uses it, as BiT does."""

    def forward(self, images):
        """Convolve."""
        weight = (self.weight - self.weight.mean()) / self.weight.std()
        return F.conv2d(images, weight, self.bias, self.stride, self.padding)


class Remembering(nn.BatchNorm2d):
    """Calls the function with what it remembers, as some packages' norms do."""

    def forward(self, images):
        """Normalise."""
        values = self.running_mean, self.running_var, self.weight, self.bias
        return F.relu(F.batch_norm(images, *values, self.training, self.momentum, self.eps))


LIFTS = {
    "conv2d": nn.Sequential(
        Standardised(3, 4, 3, padding=1), SameConv(4, 6, 3, stride=2, groups=2)
    ),
    "linear": Functional(lambda x, m: F.linear(x, m.scale.view(2, 2).repeat(1, 3))),
    "batch_norm": nn.Sequential(nn.Conv2d(3, 4, 1), Remembering(4)),
    "group_norm": Functional(lambda x, m: F.group_norm(x, 2, m.scale.flatten())),
    "layer_norm": Functional(lambda x, m: F.layer_norm(x, x.shape[1:])),
}
LAYER_OF = {
    "conv2d": "Conv2d",
    "linear": "Linear",
    "batch_norm": "BatchNorm2d",
    "group_norm": "GroupNorm",
    "layer_norm": "LayerNorm",
}


@pytest.mark.parametrize("name", LIFTED)
def test_a_layer_with_a_forward_of_its_own_is_gone_through(name):
    """Down to torch's function of weights, which becomes torch's layer."""
    found = operations(LIFTS[name])
    assert LAYER_OF[name] in found
    assert "Held" not in found


def test_weights_that_are_made_of_others_become_weights():
    """Normalised by a parametrisation, or by a hook as torch did it before."""
    first = parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    second = nn.Conv2d(4, 2, 1)
    parametrize.register_parametrization(second, "weight", nn.Tanh())
    assert operations(nn.Sequential(first, second)) == ["Conv2d", "Conv2d"]


@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: F.relu(y, inplace=True),
        lambda x, y: nn.ReLU(inplace=True)(y),
        lambda x, y: y.mul_(2),
        lambda x, y: y.__iadd__(x),
    ],
)
def test_a_tensor_that_is_changed_in_place_is_another_from_then_on(change):
    """For whoever has it by another name, too."""

    def run(x, model):
        other = x * 3
        alias = other
        change(x, other)
        return x + alias

    operations(Functional(run))


def test_operators_in_place_change_what_has_other_names():
    """As they do in torch."""

    def run(x, model):
        other = alias = x * 3
        other += x
        other -= 0.5
        other *= model.scale
        other /= 2
        return alias + x

    operations(Functional(run))


def test_sizes_are_known_and_may_decide():
    """Python computes with them; the number of images stays open."""

    def run(x, model):
        batch, channels, height, width = x.shape
        if height % 2:
            x = F.pad(x, (0, 0, 0, height % 2))
        assert (x.dim(), x.ndim, len(x)) == (4, 4, batch)
        assert x.numel() == batch * channels * (height + 1) * width
        assert x.dtype == torch.float32
        x = x.view(batch, 2, channels // 2, -1, width).transpose(1, 2).contiguous()
        x = x.transpose(1, 2).contiguous().view(batch, channels, -1)
        left, right = x.chunk(2, dim=2)
        return torch.cat(torch.split(left + right, [1, 3], 1), 1).to(model.scale.device)

    operations(Functional(run))


def test_a_layer_that_runs_twice_has_its_weights_once():
    """And a parameter that is read twice."""
    conv = nn.Conv2d(3, 3, 3, padding=1)

    class Twice(nn.Module):
        """Two runs of one convolution, and of a scale."""

        def __init__(self):
            super().__init__()
            self.conv = conv
            self.scale = nn.Parameter(torch.ones(3, 1, 1))

        def forward(self, images):
            """Run twice."""
            return self.conv(self.conv(images) * self.scale) * self.scale

    model = Twice()
    found = operations(model)
    assert found == ["Conv2d", "Held", "mul", "Conv2d", "Held", "mul"]
    traced = trace(model, SIZE)
    assert [node.same_as for node in traced.spec.nodes] == [None, None, None, 1, 2, None]
    assert set(traced.weights) == {"layers.1.weight", "layers.1.bias", "layers.2.value"}


def test_a_model_may_be_functional_and_normalise_inside():
    """Buffers are kept, a layer that is made on the way is known, and what is unused is dropped."""

    def run(x, model):
        del model
        nn.Sigmoid()(x)
        return nn.Flatten()(nn.AdaptiveAvgPool2d(1)(x)).squeeze()

    operations(Functional(run))
    found = operations(CifarResNet(1, 4))
    assert found[:5] == ["Held", "sub", "Held", "div", "Conv2d"]
    assert "sigmoid" not in found


def test_dropout_and_what_else_only_trains_is_silent():
    """A layer stays, for a training to come; a function goes."""

    def run(x, model):
        return F.dropout(x, 0.5, model.training).detach().clone() + 0.0

    assert operations(Functional(run)) == ["Conv2d", "add"]
    assert operations(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Dropout(0.4)))[-1] == "Dropout"


def stochastic_depth(x, share):
    """A function that its package does not want traced."""
    return x * (1 - share)


fx.wrap("stochastic_depth")


class Part(nn.Module):
    """A part that does as it is told."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        """Do it."""
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (torch.cumsum, "cannot be traced.*dim"),
        (lambda x: torch.cumsum(x, 1), "calls 'cumsum' of a tensor"),
        (lambda x: stochastic_depth(x, 0.2), "calls 'stochastic_depth' of a tensor"),
        (lambda x: x.tril(), "calls 'tril' of a tensor"),
        (lambda x: x.T + 0, "calls 'T' of a tensor"),
        (lambda x: x if x.sum() > 0 else -x, "calls 'gt' of a tensor"),
        (lambda x: x if x.sum() else -x, "decides by what is in the images"),
        (lambda x: F.dropout(x, 0.9), "changes values, or their type, by 'dropout'"),
        (lambda x: x.to(torch.float64), "changes values, or their type, by 'to'"),
        (lambda x: x[0], "takes single images out"),
        (lambda x: x[:, torch.tensor([1, 0])], "by other than numbers and slices"),
        (lambda x: x.flatten(), r"mixes images: shape \(2, 3, 9, 6\) becomes \(324,\)"),
        (lambda x: F.conv2d(x, x[:, :, :1, :1]), "'conv2d' with weights made of images"),
        (lambda x: F.batch_norm(x, None, None, training=True), "as in training"),
        (lambda x: [each for each in x], "cannot be traced"),
        (lambda x: x + "1", "cannot be traced"),
        (lambda x: float(x.mean()), "cannot be traced"),
    ],
)
def test_what_a_spec_cannot_hold_is_refused(function, message):
    """The message names the part and the operation, and says what to do."""
    model = nn.Sequential()
    model.add_module("stem", nn.Identity())
    model.add_module("odd", Part(function))
    with pytest.raises(TrainingError, match=message) as caught:
        trace(model, SIZE)
    assert "the model's part 'odd'" in str(caught.value)
    assert "torch.nn.Identity()" in str(caught.value)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: (x.relu(), x), "must return one tensor"),
        (lambda x: {"logits": x.relu()}, "must return one tensor"),
        (lambda x: x, "must return one tensor"),
        (lambda x: torch.zeros(2, 3), "must return one tensor"),
        (lambda x: None, "must return one tensor"),
    ],
)
def test_an_answer_that_is_none_is_refused(function, message):
    """It must be a single tensor that is made of the images."""
    with pytest.raises(TrainingError, match=message):
        trace(Part(function), SIZE)
