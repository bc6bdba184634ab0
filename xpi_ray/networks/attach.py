"""Turns a single-exit CNN of anyone's into a fine-grained multi-exit network, as EINet does.

    model ─► trace ─► cuts, where one tensor carries everything ─► blocks and branches

EINet (ICDCS'23), "fine-grained multi-exit NNs": a conv part is "one convolutional layer and its
subsequent operations", and each gets a branch. Where skip connections leave no cut after a
convolution, the part goes on to the next one: a ResNet is cut between its residual blocks.
"""

import copy
import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from xpi_ray.errors import TrainingError
from xpi_ray.networks.branched import BranchedNetwork, BranchedSpec, FineBlockSpec, FineBranchSpec
from xpi_ray.networks.bundled import IMAGE_CHANNELS, Colour
from xpi_ray.networks.graph import Graph, GraphSpec, shapes_of
from xpi_ray.networks.tracing import trace

CHECKED_IMAGES = 3  # another number than are traced
TOLERANCE = 1e-3  # of the largest logit; more than rounding, less than any other network


def attach_exits(
    model: nn.Module,
    *,
    num_classes: int,
    image_size: tuple[int, int],
    mean: Colour,
    std: Colour,
    exits: Sequence[int] | int | None = None,
) -> BranchedNetwork:
    """Attach exits to a model, whose weights are copied and which itself is left as it is.

    The model's own answer is the last exit. Branches are fresh; a training makes them useful.

    Args:
        model: Normalised images, float32 (n, 3, H, W), to logits (n, K), in any mode.
        num_classes: K.
        image_size: H and W.
        mean: Of each colour, which the model wants taken off, pixels scaled to 0..1. A model that
            normalises inside wants 0 here and 1 for ``std``; one that wants pixels of 0..255 wants
            1/255 for ``std``.
        std: Of each colour, by which it wants them divided, likewise.
        exits: Where exits are, the model's own, which is always there and the last, apart. None is
            after each convolution and its subsequent operations, as far as one tensor carries
            everything there; numbers are some of these places, 1.., ascending; a single number is
            how many exits there shall be, the model's own among them, evenly over the
            multiplications.

    Returns:
        A network with one block for each exit, in training mode.

    Raises:
        TrainingError: The model cannot be traced, answers with other than K logits or not in the
            same way for every image, or there are no such places.
    """
    copied = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    spec, weights = trace(copied, image_size)
    try:
        shapes = shapes_of(spec, image_size)
    except ValueError as err:
        raise TrainingError(f"the model cannot be a network of a bundle: {err}") from err
    if shapes[-1] != (1, num_classes):
        raise TrainingError(
            f"expected a model that maps an image to logits (1, {num_classes}), got {shapes[-1]}"
        )
    places = conv_parts(spec, shapes)
    chosen = _choose(places, exits, spec, image_size)
    blocks = tuple(FineBlockSpec(cut=cut, branch=FineBranchSpec()) for cut in chosen)
    network = BranchedNetwork(
        BranchedSpec(
            num_classes=num_classes,
            image_size=image_size,
            mean=mean,
            std=std,
            graph=spec,
            blocks=blocks,
        )
    )
    network.graph.load_state_dict(weights)
    _check(network, copied)
    return network


def conv_parts(spec: GraphSpec, shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """The cuts, ascending, after each convolution and the operations that follow it.

    Each is a cut (n, C, h, w) before the next convolution: of those with the fewest values the last
    one, so that poolings go before it and paddings after it. After the last convolution it has more
    than one position, if any has: where all is pooled, the head begins.

    Args:
        spec: Of the whole network.
        shapes: Of what its nodes 0..M make.
    """
    cuts = [cut for cut in spec.cuts() if len(shapes[cut]) == 4]
    convolutions = [
        number for number, node in enumerate(spec.nodes, start=1) if node.operation == "Conv2d"
    ]
    found: list[int] = []
    for start, end in pairwise([*convolutions, len(spec.nodes) + 1]):
        within = [cut for cut in cuts if start <= cut < end]
        if end > len(spec.nodes):
            within = [cut for cut in within if shapes[cut][2:] != (1, 1)] or within
        if within:
            found.append(min(within, key=lambda cut: (math.prod(shapes[cut]), -cut)))
    return found


def _choose(
    places: list[int],
    exits: Sequence[int] | int | None,
    spec: GraphSpec,
    image_size: tuple[int, int],
) -> list[int]:
    """Those of the places that shall have an exit."""
    if exits is None:
        if not places:
            raise TrainingError(
                "after no convolution of the model does one tensor carry everything, so there is "
                "no place for an exit but its own; ask for exits=1 to have it as it is"
            )
        return places
    if not isinstance(exits, int):
        if not set(exits) <= set(range(1, len(places) + 1)) or list(exits) != sorted(set(exits)):
            raise TrainingError(
                f"expected exits at some of the places 1..{len(places)}, ascending, got {exits}"
            )
        return [places[number - 1] for number in exits]
    if not 1 <= exits <= len(places) + 1:
        raise TrainingError(
            f"expected 1 to {len(places) + 1} exits, for one tensor carries everything in "
            f"{len(places)} places; got {exits}"
        )
    costs = _costs(spec, places, image_size)
    chosen: list[int] = []  # indices of places
    for number in range(1, exits):
        first = chosen[-1] + 1 if chosen else 0
        free = range(first, len(places) - (exits - 1 - number))
        chosen.append(min(free, key=lambda place: abs(costs[place] - number / exits * costs[-1])))
    return [places[place] for place in chosen]


def _costs(spec: GraphSpec, places: Sequence[int], image_size: tuple[int, int]) -> list[int]:
    """Multiplications up to each place, and in all."""
    costs, before = [], 0
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        graph, value = Graph(spec).eval(), torch.empty(1, IMAGE_CHANNELS, *image_size)
        for place in (*places, len(spec.nodes)):
            value = graph.run(value, before, place)
            costs.append(counter.get_total_flops())
            before = place
    return costs


@torch.no_grad()
def _check(network: BranchedNetwork, model: nn.Module) -> None:
    """Compare the last exit of single images with what the model makes of all at once."""
    generator = torch.Generator().manual_seed(1)
    shape = CHECKED_IMAGES, IMAGE_CHANNELS, *network.image_size
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    expected: Tensor = model(network.normalised(images).contiguous())
    network.eval()
    found = torch.cat([network(image)[-1] for image in images.split(1)])
    network.train()
    if not torch.allclose(found, expected, atol=TOLERANCE * float(expected.abs().max())):
        raise TrainingError(
            "the traced network answers otherwise than the model, by up to "
            f"{float((found - expected).abs().max()):.3g}: what it makes of an image must depend "
            "on nothing else, such as chance, or other images of the batch; and no tensor may be "
            "changed in place through a view of it"
        )
