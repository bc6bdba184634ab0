"""From a network's kind and spec, as a bundle's manifest holds them, to the network."""

from collections.abc import Callable

from pydantic import JsonValue

from xpi_ray.networks.branched import BranchedNetwork, BranchedSpec
from xpi_ray.networks.msdnet import MsdNetwork, MsdSpec
from xpi_ray.networks.plain import PlainNetwork, PlainSpec, PlainTrunkNetwork, PlainTrunkSpec
from xpi_ray.networks.progressive import ProgressiveNetwork
from xpi_ray.networks.trunk import TrunkNetwork, TrunkSpec
from xpi_ray.networks.xpi import XpiNetwork, XpiSpec

KINDS: dict[str, Callable[[JsonValue], ProgressiveNetwork]] = {
    XpiNetwork.kind: lambda spec: XpiNetwork(XpiSpec.model_validate(spec)),
    TrunkNetwork.kind: lambda spec: TrunkNetwork(TrunkSpec.model_validate(spec)),
    PlainNetwork.kind: lambda spec: PlainNetwork(PlainSpec.model_validate(spec)),
    PlainTrunkNetwork.kind: lambda spec: PlainTrunkNetwork(PlainTrunkSpec.model_validate(spec)),
    MsdNetwork.kind: lambda spec: MsdNetwork(MsdSpec.model_validate(spec)),
    BranchedNetwork.kind: lambda spec: BranchedNetwork(BranchedSpec.model_validate(spec)),
}


def build(kind: str, spec: JsonValue) -> ProgressiveNetwork:
    """Build a network with fresh weights.

    Raises:
        ValueError: The kind is unknown, or the spec does not describe a network of that kind.
    """
    if kind not in KINDS:
        known = ", ".join(KINDS)
        raise ValueError(f"unknown kind of network {kind!r}; this version knows: {known}")
    return KINDS[kind](spec)
