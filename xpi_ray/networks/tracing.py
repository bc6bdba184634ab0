"""From a torch module of the user's to the plain data of ``networks.graph``.

    model, eval mode ─► torch.fx, on images of noise ─► GraphSpec and weights

Sizes are known while it runs, and what is in the images is not: a forward may compute with shapes,
and choose by them, in Python. Nothing is pickled; what is no layer or function of
``networks.operations`` is traced through, down to those, or refused.
"""

import operator
from collections.abc import Callable
from itertools import takewhile
from types import EllipsisType
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor, fx, nn

from xpi_ray.errors import TrainingError
from xpi_ray.networks.bundled import IMAGE_CHANNELS
from xpi_ray.networks.calls import (
    EXPANDING,
    IDENTITIES,
    NO_EFFECT,
    PERMUTING,
    REWRITTEN,
    SPLITTING,
    changes_in_place,
    name_of,
    run,
)
from xpi_ray.networks.graph import GraphSpec, NodeSpec
from xpi_ray.networks.lifting import LIFTED, lifted
from xpi_ray.networks.operations import FUNCTIONS, LAYERS, Held, layer_settings, plain

TRACED_IMAGES = 2
ADVICE = (
    "networks are made of the layers and functions that xpi_ray.networks.operations lists; write "
    "it with those, or put torch.nn.Identity() in the place of what does nothing at inference"
)


class Traced(NamedTuple):
    """What is known of a module after a trace."""

    spec: GraphSpec
    weights: dict[str, Tensor]
    """For a ``Graph`` of the spec."""


def trace(model: nn.Module, image_size: tuple[int, int]) -> Traced:
    """Trace a model as it is at inference.

    Args:
        model: In eval mode, float32, on the CPU; left as it is. It maps normalised images
            (n, 3, H, W) to one tensor (n, ...).
        image_size: H and W.

    Raises:
        TrainingError: It has operations that a spec cannot hold, or decides by what is in images.
    """
    generator = torch.Generator().manual_seed(0)
    tracer = _Tracer(torch.randn(TRACED_IMAGES, IMAGE_CHANNELS, *image_size, generator=generator))
    try:
        with torch.no_grad():
            return tracer.read(tracer.trace(_Root(model)))
    except TrainingError:
        raise
    except Exception as err:  # a forward of the user's raises what it wants
        raise TrainingError(
            f"{tracer.place} cannot be traced ({type(err).__name__}: {err}); {ADVICE}"
        ) from err


class _Root(nn.Module):
    """Calls the model with images alone, so that its other arguments keep their defaults."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.model(images)
        return answer


class _Proxy(fx.Proxy):
    """Stands for a tensor while a model is traced, and knows its sizes."""

    @property
    def known(self) -> Tensor:
        """What it is for the images of noise."""
        value: Tensor = self.node.meta["value"]
        return value

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name in ("shape", "ndim", "dtype", "device", "is_cuda"):
            return getattr(self.known, name)
        return super().__getattr__(name)

    def size(self, dim: int | None = None) -> Any:  # noqa: ANN401
        return self.known.size() if dim is None else self.known.size(dim)

    def dim(self) -> int:
        return self.known.dim()

    def numel(self) -> int:
        return self.known.numel()

    def __len__(self) -> int:
        return len(self.known)

    def __iadd__(self, other: object) -> "_Proxy":
        return self._changed(operator.iadd, other)

    def __isub__(self, other: object) -> "_Proxy":
        return self._changed(operator.isub, other)

    def __imul__(self, other: object) -> "_Proxy":
        return self._changed(operator.imul, other)

    def __itruediv__(self, other: object) -> "_Proxy":
        return self._changed(operator.itruediv, other)

    def _changed(self, target: Callable[..., Any], other: object) -> "_Proxy":
        changed = self.tracer.create_proxy("call_function", target, (self, other), {})
        assert isinstance(changed, _Proxy)
        return changed


class _Tracer(fx.Tracer):
    """Writes down what happens to images, in the words of ``networks.operations``."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = images
        self.place = "the model"
        """What runs, for messages."""
        self._layers: dict[nn.Module, nn.Module] = {}  # copies, by the user's
        self._held: dict[int, tuple[Tensor, Held]] = {}  # by the tensor's id, and what keeps it so
        self._now: dict[fx.Node, fx.Node] = {}  # what a tensor that is changed in place became

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether it is a layer as torch has it; changed and hooked ones are traced through."""
        del module_qualified_name
        hooked = m._forward_hooks or m._forward_pre_hooks
        return LAYERS.get(type(m).__name__) is type(m) and not hooked

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:  # noqa: ANN401
        """Write down a layer, or go through any other module; note what runs."""
        before, path = self.place, (self.submodule_paths or {}).get(m, type(m).__name__)
        if path != "model":
            self.place = f"the model's part {path.removeprefix('model.')!r}"
        given = *args, *kwargs.values()
        if self.is_leaf_module(m, path) and any(isinstance(each, fx.Proxy) for each in given):
            found = self._call_layer(m, *given)
            if getattr(m, "inplace", False):
                self._change(given[0], found)
        else:
            found = forward(*args, **kwargs)
        self.place = before  # an error leaves it where it arose
        return found

    def getattr(
        self,
        attr: str,
        attr_val: Any,  # noqa: ANN401
        parameter_proxy_cache: dict[str, Any],
    ) -> Any:  # noqa: ANN401
        """Weights are known: what is made of them alone is made here and now."""
        del attr, parameter_proxy_cache
        return attr_val

    def proxy(self, node: fx.Node) -> _Proxy:
        """What stands for a node's value."""
        return _Proxy(node, self)

    def to_bool(self, obj: fx.Proxy) -> NoReturn:
        """Refuse to decide."""
        self._refuse(f"decides by what is in the images (by {obj.node.name!r})")

    def create_proxy(
        self,
        kind: str,
        target: Any,  # noqa: ANN401
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *rest: Any,  # noqa: ANN401
        **more: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Write down one call, and return what stands for the result."""
        if kind == "placeholder":
            images = super().create_proxy(kind, target, args, kwargs, *rest, **more)
            images.node.meta["value"] = self.images
            return images
        name = name_of(target)
        if not name:
            called = args[1] if target is getattr else getattr(target, "__name__", target)
            self._refuse(f"calls {called!r} of a tensor")
        args = args or (kwargs.pop("input" if "input" in kwargs else "tensors"),)
        found = self._call(name, target, args, kwargs)
        if changes_in_place(target, kwargs):
            self._change(args[0], found)
        return found

    def _change(self, before: _Proxy, after: _Proxy) -> None:
        """From now on a tensor is what it was changed to in place."""
        old, new = self._node(before), self._node(after)
        if old is not new:
            self._now[old] = new

    def _call_layer(self, layer: nn.Module, *args: Any) -> _Proxy:  # noqa: ANN401
        if layer not in self._layers:
            with torch.device("meta"):  # and so without fresh weights
                same = LAYERS[type(layer).__name__](**layer_settings(layer))
            same.load_state_dict(layer.state_dict(), assign=True)
            self._layers[layer] = same.eval()
        return self._record(self._layers[layer], *args)

    def _call(
        self,
        name: str,
        target: Any,  # noqa: ANN401
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:  # noqa: ANN401
        """Write down a call of the function of that name."""
        first = args[0]
        if name in LIFTED:
            layer = lifted(name, args[1:], kwargs)
            if layer is None:
                self._refuse(f"calls {name!r} with weights made of images, or as in training")
            return self._record(layer, first)
        if name == "getitem":
            return self._pick(first, args[1])
        if name not in REWRITTEN:
            return self._apply(name, args, kwargs)
        found: Any = run(target, _known(args), _known(kwargs))
        if name in SPLITTING:
            return self._split(first, found, kwargs.get("dim", (*args, 0)[2]))
        if name in IDENTITIES:
            if found.dtype != torch.float32 or not torch.equal(found, first.known):
                self._refuse(f"changes values, or their type, by {name!r}")
            return first
        if name in PERMUTING:  # of sizes that tell which dimension it is
            sizes = torch.empty(tuple(range(first.dim())), device="meta")
            moved: Any = run(target, (sizes, *args[1:]), kwargs)
            return self._record("permute", first, dims=tuple(moved.shape))
        return self._shape(first, found, "expand" if name in EXPANDING else "reshape")

    def _apply(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Proxy:
        """Write down a function that operations have."""
        function = FUNCTIONS[name]
        if _is_tensor(kwargs.get("other")):
            args = (*args, kwargs.pop("other"))
        if name in ("add", "sub", "mul", "div") and not _is_tensor(args[0]):
            number, tensor = args
            if name == "div":
                tensor, name = self._record("reciprocal", tensor), "mul"
            return self._apply({"sub": "rsub"}.get(name, name), (tensor, number), kwargs)
        if name == "cat":
            tensors, args = tuple(args[0]), args[1:]
        else:
            tensors = tuple(takewhile(_is_tensor, args))
            args = args[len(tensors) :]
        settings = dict(zip(function.settings, args, strict=False))
        settings |= {
            setting: value
            for setting, value in kwargs.items()
            if setting in function.settings or not (setting in NO_EFFECT or value in (None, False))
        }
        if isinstance(settings.get("other"), int):
            settings["other"] = float(settings["other"])  # which may be of any size
        return self._record(name, *tensors, **settings)

    def _pick(self, whole: _Proxy, index: Any) -> _Proxy:  # noqa: ANN401
        """Write down what square brackets take out of a tensor: slices, single places."""
        places = list(index) if isinstance(index, tuple) else [index]
        if not all(each is None or isinstance(each, int | slice | EllipsisType) for each in places):
            self._refuse("takes values out of a tensor by other than numbers and slices")
        found = whole.known[tuple(places)]
        if Ellipsis not in places:
            places.append(Ellipsis)
        places = [each for each in places if each is not None]
        missing = [slice(None)] * (whole.dim() - len(places) + 1)
        at = places.index(Ellipsis)
        bounds: list[tuple[int, int, int]] = []
        for place, length in zip(
            [*places[:at], *missing, *places[at + 1 :]], whole.shape, strict=True
        ):
            if isinstance(place, int):
                place = slice(place % length, place % length + 1)
            bounds.append(place.indices(length))
        if bounds[0] != (0, len(self.images), 1):
            self._refuse("takes single images out of the batch")
        part = self._record("slice", whole, bounds=sum(bounds[1:], ()))
        return part if part.shape == found.shape else self._shape(part, found, "reshape")

    def _split(self, whole: _Proxy, pieces: tuple[Tensor, ...], dim: int) -> tuple[_Proxy, ...]:
        """Write down each piece as a slice of the whole."""
        start, found = 0, []
        for piece in pieces:
            end = start + piece.shape[dim]
            before = [slice(None)] * (dim % whole.dim())
            found.append(self._pick(whole, (*before, slice(start, end))))
            start = end
        return tuple(found)

    def _shape(self, first: _Proxy, found: Tensor, operation: str) -> _Proxy:
        """Write down a change of shape that leaves images apart."""
        if not found.dim() or len(found) != len(self.images):
            self._refuse(f"mixes images: shape {tuple(first.shape)} becomes {tuple(found.shape)}")
        return self._record(operation, first, shape=tuple(found.shape[1:]))

    def _record(self, what: str | nn.Module, *tensors: Any, **settings: Any) -> _Proxy:  # noqa: ANN401
        """Write down a function or a layer, and run it."""
        nodes = tuple(map(self._node, tensors))
        values = [node.meta["value"] for node in nodes]
        if isinstance(what, nn.Module):
            operation, settings, layer = type(what).__name__, layer_settings(what), what
            node, value = self.create_node("call_module", operation, nodes, {}), what(*values)
        else:
            operation, layer, function = what, None, FUNCTIONS[what].run
            settings = {name: plain(value) for name, value in settings.items()}
            node = self.create_node("call_function", function, nodes, {})
            value = function(*values, **settings)
        node.meta.update(operation=operation, settings=settings, layer=layer, value=value)
        return self.proxy(node)

    def _node(self, value: Any) -> fx.Node:  # noqa: ANN401
        """The node of a tensor as it is by now; a known tensor gets one of its own."""
        if isinstance(value, fx.Proxy):
            node = value.node
            while node in self._now:
                node = self._now[node]
            return node
        if not isinstance(value, Tensor):
            self._refuse(f"needs a tensor in the place of {value!r}")
        if id(value) not in self._held:
            held = Held(tuple(value.shape), isinstance(value, nn.Parameter))
            held.value.copy_(value)
            self._held[id(value)] = value, held
        return self._record(self._held[id(value)][1]).node

    def read(self, graph: fx.Graph) -> Traced:
        """What was written down, without what the answer does not need.

        Raises:
            TrainingError: The answer is no tensor.
        """
        answer = graph.output_node().args[0]
        if not isinstance(answer, fx.Node) or "operation" not in answer.meta:
            self._refuse(f"must return one tensor, computed of the images; it returns {answer!r}")
        needed = {answer := self._node(self.proxy(answer))}
        numbers: dict[fx.Node, int] = {}
        nodes: list[NodeSpec] = []
        weights: dict[str, Tensor] = {}
        owners: dict[nn.Module, int] = {}
        for node in reversed(graph.nodes):
            if node in needed:
                needed.update(node.all_input_nodes)
        for node in graph.nodes:
            if node.op == "placeholder" or node not in needed:
                numbers[node] = 0
                continue
            numbers[node] = number = len(nodes) + 1
            layer: nn.Module | None = node.meta["layer"]
            stateful = layer is not None and layer.state_dict()
            first = owners.setdefault(layer, number) if layer is not None and stateful else number
            nodes.append(
                NodeSpec(
                    operation=node.meta["operation"],
                    inputs=tuple(numbers[read] for read in node.args),
                    settings=node.meta["settings"],
                    same_as=first if first != number else None,
                )
            )
            if layer is not None and first == number:
                weights |= {f"layers.{number}.{key}": w for key, w in layer.state_dict().items()}
        return Traced(GraphSpec(nodes=tuple(nodes)), weights)

    def _refuse(self, what: str) -> NoReturn:
        raise TrainingError(f"{self.place} {what}; {ADVICE}")


def _is_tensor(value: object) -> bool:
    return isinstance(value, fx.Proxy | Tensor)


def _known(arguments: Any) -> Any:  # noqa: ANN401
    """Arguments with what proxies stand for in their place."""
    return fx.node.map_aggregate(
        arguments, lambda each: each.known.contiguous() if isinstance(each, _Proxy) else each
    )
