import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from xpi_ray.networks import graph as graphs
from xpi_ray.networks.graph import LARGEST, Graph, GraphSpec, NodeSpec, shapes_of
from xpi_ray.networks.tracing import trace


def node(operation, *inputs, **settings):
    """A node as data."""
    return {"operation": operation, "inputs": inputs, "settings": settings}


def conv(read=0, made=2, channels=3, **settings):
    """A convolution of node ``read``."""
    both = {"in_channels": channels, "out_channels": made, "kernel_size": 3, "padding": 1}
    return node("Conv2d", read, **{**both, **settings})


@st.composite
def webs(draw):
    """Nodes that add up any earlier ones, each read by a later one."""
    count = draw(st.integers(1, 9))
    inputs = [[0]]
    for number in range(2, count + 1):
        inputs.append(draw(st.lists(st.integers(0, number - 1), min_size=1, max_size=3)))
    for number in range(count):  # whoever is not read yet is read by the next
        if not any(number in reads for reads in inputs[number:]):
            inputs[number].append(number)
    settings = {"dim": 1}
    return GraphSpec(
        nodes=tuple(NodeSpec(operation="cat", inputs=reads, settings=settings) for reads in inputs)
    )


def reachable(spec, without):
    """The nodes that images reach by paths that leave one node out."""
    found = {0}
    for number, node in enumerate(spec.nodes, start=1):
        if number != without and found & set(node.inputs):
            found.add(number)
    return found


@given(spec=webs())
def test_a_cut_is_a_node_that_every_path_goes_through(spec):
    """As by trying every path."""
    last = len(spec.nodes)
    assert spec.cuts() == [
        number for number in range(1, last) if last not in reachable(spec, number)
    ]


@given(spec=webs(), data=st.data())
def test_a_network_runs_in_parts(spec, data):
    """From cut to cut it makes what it makes at once."""
    graph, images = Graph(spec), torch.rand(2, 3, 2, 2)
    ends = sorted(data.draw(st.sets(st.sampled_from([*spec.cuts(), 0]))) | {0, len(spec.nodes)})
    value = images
    for start, end in itertools.pairwise(ends):
        value = graph.run(value, start, end)
    assert torch.equal(value, graph(images))
    assert shapes_of(spec, (2, 2))[-1] == (1, *value.shape[1:])


def test_what_nobody_reads_any_more_is_let_go(monkeypatch):
    """A long chain holds two values at a time."""
    alive = []

    class Counted(torch.Tensor):
        """Tells how many there are."""

        def __del__(self):
            alive.remove(id(self))

    class Layer(nn.Module):
        def forward(self, x):
            found = torch.Tensor._make_subclass(Counted, torch.zeros(1))
            alive.append(id(found))
            return found

    graph = Graph(GraphSpec(nodes=[conv(number, 3) for number in range(6)]))
    for name in graph.layers:
        graph.layers[name] = Layer()
    most = 0
    for _ in graph.walk(torch.zeros(1, 3, 4, 4), 0, 6):
        most = max(most, len(alive))
    assert most <= 3


def test_norms_are_folded_where_nothing_else_sees_it():
    """Not where a convolution runs twice, is read twice, or its own value must stay."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))
            self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(6))

        def forward(self, x):
            x = self.norms[0](self.convs[0](x))
            x = self.norms[1](self.convs[1](x))
            twice = self.convs[2](x)
            x = self.norms[2](twice) + twice
            x = self.norms[3](self.convs[3](x))
            x = self.norms[4](self.convs[3](x))
            return self.norms[5](x)

    torch.manual_seed(0)
    model = Model().eval().requires_grad_(False)
    for norm in model.norms:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    traced = trace(model, (5, 4))
    graph = Graph(traced.spec).eval().requires_grad_(False)
    graph.load_state_dict(traced.weights)
    images = torch.randn(2, 3, 5, 4)
    second = 3  # the node of the second convolution
    kept = graph.run(images, 0, second)
    graph.fold([second])
    graph.fold([second])
    norms = [name for name, layer in graph.layers.items() if isinstance(layer, nn.BatchNorm2d)]
    assert norms == ["4", "6", "9", "11", "12"]
    assert torch.allclose(graph(images), model(images), atol=1e-5)
    assert torch.allclose(graph.run(images, 0, second), kept, atol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([], "at least 1 item"),
        ([conv()] * 4097, "at most 4096 items"),
        ([node("eval", 0)], "unknown operation 'eval'"),
        ([node("__class__", 0)], "unknown operation"),
        ([conv(1)], "node 1 must read nodes before it"),
        ([conv(-1)], "node 1 must read nodes before it"),
        ([conv(), conv()], r"nobody reads \[1\]"),
        ([node("Held", shape=[1], learns=True)], r"nobody reads \[0\]"),
        ([{**conv(), "inputs": [0, 0]}], "reads 1 to 1 nodes"),
        ([node("add")], "reads 1 to 2 nodes"),
        ([node("relu", 0, out=1)], r"has no settings \['out'\]"),
        ([conv(device="cuda")], r"has no settings \['device'\]"),
        ([conv(made=LARGEST + 1)], "out_channels must be within"),
        ([conv(kernel_size=[3, LARGEST + 1])], "kernel_size must be within"),
        ([conv(made=0, groups=0)], "there is no Conv2d of"),
        ([conv(padding="far")], "there is no Conv2d of"),
        ([conv(made=[[1]])], "nodes.0.settings"),
        ([conv(), {**conv(1, channels=2), "same_as": 1}], "node 2 must run the layer of"),
        ([{**conv(), "same_as": 1}], "node 1 must run the layer of an earlier"),
        ([{**conv(), "name": "x"}], "Extra inputs"),
    ],
)  # fmt: skip
def test_a_spec_of_no_network_is_refused(nodes, message):
    """Before any layer is made, and the message says where."""
    with pytest.raises(ValidationError, match=message):
        GraphSpec.model_validate({"nodes": nodes})


WIDE = [
    node("mean", 0, dim=[2, 3]),
    node("Linear", 1, in_features=3, out_features=LARGEST),
    node("Linear", 2, in_features=LARGEST, out_features=LARGEST),
]


@pytest.mark.parametrize(
    ("nodes", "size", "message"),
    [
        ([conv(channels=4)], (8, 8), r"there cannot be node 1 \(Conv2d\)"),
        ([conv(), node("add", 0, 1)], (8, 8), r"node 2 \(add\)"),
        ([node("relu", 0), conv(1, made=LARGEST)], (64, 64), "more than 268435456 values"),
        ([node("pad", 0, pad=[60000] * 4)], (8, 8), "values"),
        ([node("mean", 0, dim="one")], (8, 8), r"node 1 \(mean\)"),
        (WIDE, (8, 8), "may have 268435456 weights"),
        ([conv()], (0, 8), "there cannot be node 1"),
        ([conv()], (-1, 8), "there cannot be an image"),
        ([conv()], (2**40, 2**40), "there cannot be an image"),
    ],
)  # fmt: skip
def test_a_network_that_cannot_run_is_refused_before_memory_is_taken(
    nodes, size, message, monkeypatch
):
    """Whatever sizes a spec declares, nothing is made of them but on the meta device."""
    spec = GraphSpec.model_validate({"nodes": nodes})
    made = []
    monkeypatch.setattr(
        graphs.NodeSpec,
        "layer",
        lambda node, layer=NodeSpec.layer: made.append(layer(node)) or made[-1],
    )
    with pytest.raises(ValueError, match=message):
        shapes_of(spec, size)
    assert all(weight.is_meta for layer in made for weight in layer.parameters())
