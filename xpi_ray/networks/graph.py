"""A traced network as plain data, and the module that runs it.

    GraphSpec: node 0, the images ─► node 1 ─► … cut … ─► node M, the answer

A node is a layer or a function of ``networks.operations`` and reads nodes before it. A cut is a
node whose value is all that later ones read. The spec is JSON in a bundle's manifest; weights are
named by the number of their node.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from xpi_ray.config import Frozen
from xpi_ray.networks.bundled import IMAGE_CHANNELS
from xpi_ray.networks.operations import FUNCTIONS, LAYERS, Held, Setting, setting_names

MOST_NODES = 4_096
LARGEST = 65_536  # of whole numbers that a node sets, such as channels
MOST_WEIGHTS = 2**28  # as floats they fill a bundle's largest file
MOST_VALUES = 2**28  # that all nodes together make of one image


class NodeSpec(Frozen):
    """One step of a network."""

    operation: str
    """A layer's class, such as "Conv2d", or a function's name, such as "add"."""
    inputs: tuple[int, ...] = ()
    """The nodes that it reads; 0 is the images."""
    settings: dict[str, Setting] = Field(default_factory=dict)
    """By name, of the layer's constructor or of the function."""
    same_as: int | None = None
    """An earlier node whose layer, with its weights, runs here again."""

    @model_validator(mode="after")
    def _can_be(self) -> "NodeSpec":
        name = self.operation
        if name not in LAYERS and name not in FUNCTIONS:
            known = ", ".join((*LAYERS, *FUNCTIONS))
            raise ValueError(f"unknown operation {name!r}; this version knows: {known}")
        least, most = self._input_counts()
        if not least <= len(self.inputs) <= most:
            raise ValueError(f"{name} reads {least} to {most} nodes, got {self.inputs}")
        unknown = self.settings.keys() - set(setting_names(name))
        if unknown:
            raise ValueError(f"{name} has no settings {sorted(unknown)}")
        for setting, value in self.settings.items():
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, int) and abs(number) > LARGEST:
                    raise ValueError(f"{name}: {setting} must be within ±{LARGEST}, got {number}")
        if name in LAYERS:
            self._check_layer()
        return self

    def _input_counts(self) -> tuple[int, int]:
        """The least number of nodes that it may read, and the most."""
        if self.operation in FUNCTIONS:
            return FUNCTIONS[self.operation].tensors
        return (0, 0) if LAYERS[self.operation] is Held else (1, 1)

    def _check_layer(self) -> None:
        try:
            with torch.device("meta"):
                self.layer()
        except Exception as err:  # whatever torch raises on impossible settings
            raise ValueError(f"there is no {self.operation} of {self.settings}: {err}") from err

    def layer(self) -> nn.Module:
        """Its layer with fresh weights, where it is one."""
        return LAYERS[self.operation](**self.settings)


class GraphSpec(Frozen):
    """All that fixes a traced network but its weights."""

    nodes: tuple[NodeSpec, ...] = Field(min_length=1, max_length=MOST_NODES)
    """Nodes 1..M; the last one's value is the answer."""

    @model_validator(mode="after")
    def _goes_forward(self) -> "GraphSpec":
        for number, node in enumerate(self.nodes, start=1):
            if not all(0 <= read < number for read in node.inputs):
                raise ValueError(f"node {number} must read nodes before it, got {node.inputs}")
            if node.same_as is not None and not self._is_twin(number, node.same_as):
                raise ValueError(
                    f"node {number} must run the layer of an earlier node like it, not of node "
                    f"{node.same_as}"
                )
        unread = [number for number, use in enumerate(self.last_uses()[:-1]) if not use]
        if unread:
            raise ValueError(f"every node but the last must be read, but nobody reads {unread}")
        return self

    def _is_twin(self, number: int, earlier: int) -> bool:
        """Whether a node can run the layer of an earlier one, which has it to itself."""
        if not 1 <= earlier < number:
            return False
        node, first = self.nodes[number - 1], self.nodes[earlier - 1]
        like = (first.operation, first.settings) == (node.operation, node.settings)
        return like and first.same_as is None and first.operation in LAYERS

    def last_uses(self) -> list[int]:
        """For every node, 0..M, the last node that reads it; 0 where none does."""
        last = [0] * (len(self.nodes) + 1)
        for number, node in enumerate(self.nodes, start=1):
            for read in node.inputs:
                last[read] = number
        return last

    def cuts(self) -> list[int]:
        """Nodes, ascending and without the last, whose value is all that later nodes read."""
        found, last, reach = [], self.last_uses(), 0
        for number in range(1, len(self.nodes)):
            reach = max(reach, last[number - 1])  # of all nodes before this one
            if reach <= number:
                found.append(number)
        return found

    def owner(self, number: int) -> int:
        """The node whose layer node ``number`` runs."""
        return self.nodes[number - 1].same_as or number


class _Step(NamedTuple):
    """What running a node takes."""

    function: Callable[..., Tensor] | None
    layer: str
    """What runs where there is no function; its name in ``Graph.layers``."""
    inputs: tuple[int, ...]
    done: tuple[int, ...]
    """Nodes that nobody reads after it."""


class Graph(nn.Module):
    """Runs a network by its spec, all of it or a part between two cuts.

    Args:
        spec: Of the network.
    """

    def __init__(self, spec: GraphSpec) -> None:
        super().__init__()
        self.spec = spec
        self.layers = nn.ModuleDict()
        self._steps = []
        last = spec.last_uses()
        for number, node in enumerate(spec.nodes, start=1):
            name, function = str(spec.owner(number)), None
            if node.operation in FUNCTIONS:
                function = partial(FUNCTIONS[node.operation].run, **node.settings)
            elif name not in self.layers:
                self.layers[name] = node.layer()
            done = tuple(read for read in set(node.inputs) if last[read] == number)
            self._steps.append(_Step(function, name, node.inputs, done))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (n, 3, H, W) to what the last node makes of them."""
        return self.run(images, 0, len(self._steps))

    def run(self, value: Tensor, after: int, until: int) -> Tensor:
        """Run the nodes between two cuts, and return the last one's value.

        Args:
            value: Of node ``after``, (n, ...).
            after: A cut, or 0.
            until: A later cut, or M.
        """
        return deque(self.walk(value, after, until), maxlen=1)[0]

    def walk(self, value: Tensor, after: int, until: int) -> Iterator[Tensor]:
        """As ``run``, but yield every node's value; what nobody reads any more is let go."""
        values, layers = {after: value}, self.layers
        for number, step in enumerate(self._steps[after:until], start=after + 1):
            run = step.function or layers[step.layer]
            values[number] = run(*[values[read] for read in step.inputs])
            for read in step.done:
                del values[read]
            yield values[number]

    def fold(self, kept: Collection[int]) -> None:
        """Merge batch norms into the convolutions before them, in place, in eval mode.

        Args:
            kept: Nodes whose value must stay as it is, such as cuts.
        """
        nodes, layers = self.spec.nodes, dict(self.layers.items())
        reads = Counter(read for node in nodes for read in node.inputs)
        runs = Counter(map(self.spec.owner, range(1, len(nodes) + 1)))
        for number, node in enumerate(nodes, start=1):
            before = node.inputs[0] if node.inputs else 0
            if not reads[before] == runs[before] == runs[number] == 1 or before in kept:
                continue
            conv, norm = layers.get(str(before)), layers.get(str(number))
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                fused = nn.utils.fusion.fuse_conv_bn_eval(conv.eval(), norm.eval())
                self.layers[str(before)], self.layers[str(number)] = fused, nn.Identity()


def shapes_of(spec: GraphSpec, image_size: tuple[int, int]) -> list[tuple[int, ...]]:
    """Shapes of what nodes 0..M make of one image, each (1, ...); no memory is taken for it.

    Raises:
        ValueError: A node cannot run on what it reads, or there would be too many values or weights
            for a network that may come from anywhere.
    """
    shapes: list[tuple[int, ...]] = []
    try:
        with torch.device("meta"), torch.no_grad():
            graph = Graph(spec).eval()
            image = torch.empty(1, IMAGE_CHANNELS, *image_size)
            shapes.append(tuple(image.shape))
            values = image.numel()
            for value in graph.walk(image, 0, len(spec.nodes)):
                values += value.numel()
                if values > MOST_VALUES:
                    raise ValueError(f"there would be more than {MOST_VALUES} values by then")
                shapes.append(tuple(value.shape))
    except Exception as err:  # whatever torch raises on impossible shapes
        failed = len(shapes)
        what = f"node {failed} ({spec.nodes[failed - 1].operation})" if failed else "an image"
        raise ValueError(f"there cannot be {what}: {err}") from err
    weights = sum(tensor.numel() for tensor in graph.state_dict().values())
    if weights > MOST_WEIGHTS:
        raise ValueError(f"a network may have {MOST_WEIGHTS} weights, not {weights}")
    return shapes
