"""From a network's kind and spec, as a bundle's manifest holds them, to the network."""

from pydantic import JsonValue

from xpi_ray.networks.progressive import ProgressiveNetwork
from xpi_ray.networks.trunk import TrunkNetwork, TrunkSpec
from xpi_ray.networks.xpi import XpiNetwork, XpiSpec


def build(kind: str, spec: JsonValue) -> ProgressiveNetwork:
    """Build a network with fresh weights.

    Raises:
        ValueError: The kind is unknown, or the spec does not describe a network of that kind.
    """
    if kind == XpiNetwork.kind:
        return XpiNetwork(XpiSpec.model_validate(spec))
    if kind == TrunkNetwork.kind:
        return TrunkNetwork(TrunkSpec.model_validate(spec))
    known = f"{XpiNetwork.kind}, {TrunkNetwork.kind}"
    raise ValueError(f"unknown kind of network {kind!r}; this version knows: {known}")
