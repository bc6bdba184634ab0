"""Makes the bundles of Xpi's peers from networks that `xpi train` made for them.

    python -m benchmarks.peers [--datasets …] [--epochs 8]

    runs/peers/<dataset>-plain  ─ the exits that a paper has ─► edgent, spinn, edgeml, branchynet
    runs/peers/<dataset>-single ─────────► neurosurgeon, deepcod, edge_only, cloud_only
                                                     └─► runs/peers/<dataset>/<bundle>

One network with exits after all blocks serves every multi-exit peer, trained by BranchyNet's sum of
losses; a peer keeps those nearest to the shares of the work at which its paper's network has them.
DeepCOD's encoder and decoder are trained here, for the single-exit network. A bundle's block times
are put into the units of Xpi's packaged ones by what Xpi's network takes beside them, so that how
fast this machine was on that day gives no side an advantage.
"""

import argparse
import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from benchmarks import deepcod
from benchmarks.systems import BLOCKS, BUNDLES, DATASETS
from xpi_ray.bundle import Bundle
from xpi_ray.compression.builder import CodecName
from xpi_ray.compression.deepcod import DeepCod
from xpi_ray.networks.plain import PlainNetwork
from xpi_ray.profiles.measure import count_macs, measure_profile
from xpi_ray.profiles.table import Profile
from xpi_ray.training.data import Splits, load
from xpi_ray.training.networks import find_architecture, load_weights, weights_digest
from xpi_ray.training.packing import pack

ARCHITECTURES = {
    "plain": {"cifar10": "plain12", "tiny_imagenet": "plain_lite12"},
    "single": {"cifar10": "single12", "tiny_imagenet": "single_lite12"},
}
DEEPCOD_AFTER = 3
"""The block behind which DeepCOD splits: by then a quarter of the work is done."""
DEEPCOD_CHANNELS = 32


class Peer(NamedTuple):
    """What a bundle is made of."""

    network: str
    """Of ``ARCHITECTURES``."""
    shares: tuple[float, ...] = ()
    """Of the work, where exits are; the last one is there anyway."""
    codec: CodecName = "float32"
    partition: int | None = None
    """Of the static plan, where that is the peer's own; else its policy decides."""


MADE = {
    "edgent": Peer("plain", (0.2, 0.4, 0.6, 0.8)),
    "spinn": Peer("plain", (0.15, 0.3, 0.45, 0.6, 0.75, 0.9), "shuffled_lz4"),
    "edgeml": Peer("plain", (0.25, 0.5, 0.75)),
    "branchynet": Peer("plain", (0.25, 0.5, 0.75), partition=BLOCKS),
    "neurosurgeon": Peer("single"),
    "edge_only": Peer("single", partition=BLOCKS),
    "cloud_only": Peer("single", partition=0),
    "deepcod": Peer("single", codec="deepcod", partition=DEEPCOD_AFTER),
}
"""By folder. SPINN's exits are its paper's; Edgent's network has five exits, EdgeML's four, and
BranchyNet's, of three, has here as many as EdgeML's."""


def main() -> None:
    """Make and save them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS), choices=DATASETS)
    parser.add_argument("--epochs", type=int, default=8, help="of DeepCOD's training")
    options = parser.parse_args()
    with Progress() as progress:
        for dataset in options.datasets:
            splits, xpi = load(dataset), Bundle.load(dataset)
            networks = {kind: trained(kind, splits) for kind in ARCHITECTURES}
            for name, peer in MADE.items():
                network = networks[peer.network]
                codecs = {}
                if peer.codec == "deepcod":
                    codec = trained_deepcod(network, splits, options.epochs, progress)
                    codecs = {DEEPCOD_AFTER: codec}
                bundle = make(peer, network, splits, codecs)
                profile = in_units_of(xpi, bundle, splits.validation.images)
                manifest = bundle.manifest.model_copy(update={"profiles": {"default": profile}})
                folder = BUNDLES / dataset / name
                replace(bundle, manifest=manifest).save(folder)
                accuracy = bundle.outcomes.correct.mean(0)[[n - 1 for n in bundle.network.exits]]
                told = ", ".join(f"{each:.2%}" for each in accuracy)
                progress.console.print(f"{folder}: exits {bundle.network.exits}, {told}")


def trained(kind: str, splits: Splits) -> PlainNetwork:
    """The network of that kind, with the weights of its run.

    Raises:
        DataError: It was not trained; ``xpi train`` does that.
    """
    network = find_architecture(ARCHITECTURES[kind][splits.name]).build(splits)
    load_weights(network, BUNDLES / f"{splits.name}-{kind}")
    assert isinstance(network, PlainNetwork)
    return network


def trained_deepcod(
    network: PlainNetwork, splits: Splits, epochs: int, progress: Progress
) -> DeepCod:
    """DeepCOD's encoder and decoder for the network; trained once, then read from their file."""
    serving = copy.deepcopy(network).prepare()
    channels = serving.carry_shape(DEEPCOD_AFTER)[0]
    name = f"deepcod-{weights_digest(network)}-{DEEPCOD_AFTER}-{DEEPCOD_CHANNELS}-{epochs}.pt"
    path = BUNDLES / splits.name / name
    if path.is_file():
        codec = DeepCod(channels, DEEPCOD_CHANNELS)
        codec.load_state_dict(torch.load(path, weights_only=True))
        return codec.eval()
    sides = deepcod.crossing(serving, splits.train, DEEPCOD_AFTER)
    unmirrored = splits.validation._replace(mirrored=False)
    (validation,) = deepcod.crossing(serving, unmirrored, DEEPCOD_AFTER)
    codec = deepcod.train(
        serving, DEEPCOD_AFTER, DEEPCOD_CHANNELS, sides, validation, epochs, progress
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(codec.state_dict(), path)
    return codec


def make(
    peer: Peer, network: PlainNetwork, splits: Splits, deepcods: Mapping[int, DeepCod]
) -> Bundle:
    """A peer's bundle, with block times of this machine now.

    Args:
        peer: What it is made of.
        network: With at least its exits; left as it is.
        splits: Of its data set.
        deepcods: DeepCOD's networks, for a bundle that has them.
    """
    own = network.keeping(exits_at(count_macs(network.eval()), peer.shares))
    bundle = pack(own, splits, "1", codec=peer.codec, deepcods=deepcods)
    if peer.partition is None:
        return bundle
    plan = bundle.manifest.static_plan.model_copy(update={"partition": peer.partition})
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"static_plan": plan}))


def in_units_of(known: Bundle, bundle: Bundle, images: Tensor) -> Profile:
    """A bundle's block times as they would be on the machine of another bundle's profile.

    Args:
        known: Whose times say how fast that machine is.
        bundle: Measured on this machine just now.
        images: Real ones.
    """
    then = known.manifest.profiles["default"]
    serving, level = copy.deepcopy(known.network).prepare(), known.manifest.static_plan.level
    now = measure_profile(serving, known.ladder, images, level)
    factor = sum(then.block_ms) / sum(now.block_ms)
    return rescaled(bundle.manifest.profiles["default"], factor, then.machine)


def rescaled(profile: Profile, factor: float, machine: str) -> Profile:
    """All times longer by a factor, as another machine's own."""
    slowed = profile.slowed(factor)
    return slowed.model_copy(update={"machine": machine, "slowdown": profile.slowdown})


def exits_at(macs: Sequence[int], shares: Sequence[float]) -> list[int]:
    """Blocks 1..N-1 whose ends are nearest to these shares of the work, ascending.

    Args:
        macs: Of blocks 1..i, for every i.
        shares: 0..1.
    """
    done = np.array(macs[:-1]) / macs[-1]
    return sorted({int(np.abs(done - share).argmin()) + 1 for share in shares})


if __name__ == "__main__":
    main()
