"""Profiles of a cluster's own machines: which one a replica goes by, and how they are measured.

    bundle ─► every node with a tier ─► measure_here, one node after the other ─► profiles by name
    bundle ─► profile_of(*profile_names(labels)) ─► here ─► Pace of an executor

Nodes are measured one by one, as some may be the same machine; it should serve nobody meanwhile.
"""

import copy
import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ray
import torch
from ray.exceptions import RayError

from deployments.driver import joined
from deployments.placement import CLOUD, SITE_LABEL, TIER_LABEL, missing_labels
from xpi_ray.bundle import Bundle
from xpi_ray.bundle_command import files
from xpi_ray.errors import PlacementError, TierLostError
from xpi_ray.profiles.measure import measure_profile
from xpi_ray.profiles.table import Profile

logger = logging.getLogger("ray.serve")

IMAGES = 16  # of noise: what a block takes does not depend on what it sees


class Node(NamedTuple):
    """A machine to measure."""

    name: str
    """Of its profile."""
    node_id: str
    address: str


Track = Callable[[Iterable[Node]], Iterable[Node]]
"""Shows progress: nodes -> the same nodes."""


def profile_names(labels: Mapping[str, str]) -> tuple[str, ...]:
    """What the profile of a node with these labels may be called, the most particular first."""
    if labels[TIER_LABEL] == "cloud":
        return ("cloud",)
    return (f"edge:{labels[SITE_LABEL]}", "edge")


def here(profile: Profile, total_ms: float) -> Profile:
    """The profile as an executor may go by it, with a warning where it is of another machine.

    Args:
        profile: What the bundle says of this machine.
        total_ms: What all blocks took here just now.
    """
    fitted = profile.fitted(total_ms)
    if fitted is not profile:
        logger.warning(
            "all blocks take %.1f ms here and should take %.1f ms by the profile of %s; going by "
            "the former. `xpi profile --address` measures the cluster's machines",
            total_ms,
            sum(profile.block_ms),
            profile.machine,
        )
    return fitted


def measure_bundle(loaded: Bundle, repeats: int, threads: int) -> Profile:
    """Measure a bundle's network and codec on this machine; the bundle is left as it is."""
    network = copy.deepcopy(loaded.network).prepare()  # the copy is folded
    images = torch.randint(0, 256, (IMAGES, 3, *network.image_size), dtype=torch.uint8)
    level = loaded.manifest.static_plan.level
    return measure_profile(network, loaded.ladder, images, level, repeats, threads)


def measure_nodes(
    address: str, folder: Path, repeats: int, threads: int, track: Track = iter
) -> dict[str, Profile]:
    """Measure a bundle on every labelled node of a running cluster, and leave that as it was.

    The bundle travels to the nodes, so what they measure is this one, whatever they hold.

    Args:
        address: As in ``joined``.
        folder: Of the bundle.
        repeats: As in ``measure_profile``, and so are the threads.
        threads: That an image's blocks run on.
        track: Shows progress.

    Returns:
        By name. Of several nodes with one name the slowest counts, whose deadlines are tightest.

    Raises:
        PlacementError: No living node carries a tier's labels.
        TierLostError: There is no such cluster, or a node was lost on the way.
    """
    contents = {path.name: path.read_bytes() for path in files(folder)}
    found: dict[str, Profile] = {}
    with joined(address):
        nodes = labelled(ray.nodes())
        shipped = ray.put(contents)
        for node in track(nodes):
            on_node = {"ray.io/node-id": node.node_id}
            task = ray.remote(num_cpus=0, max_retries=0, label_selector=on_node)(_measure_shipped)
            try:
                measured: Profile = ray.get(task.remote(shipped, repeats, threads))
            except RayError as err:
                reason = str(err).strip().splitlines()[-1]
                raise TierLostError(
                    f"{node.name} was not measured, node {node.address} failed: {reason}"
                ) from err
            if node.name not in found or sum(measured.block_ms) > sum(found[node.name].block_ms):
                found[node.name] = measured
    return found


def labelled(nodes: Iterable[Mapping[str, Any]]) -> list[Node]:
    """The living nodes of a tier, as Ray lists them, sorted by name.

    Raises:
        PlacementError: There is none.
    """
    nodes = list(nodes)
    found = []
    for node in nodes:
        labels = node["Labels"]
        is_edge = labels.get(TIER_LABEL) == "edge" and SITE_LABEL in labels
        if node["Alive"] and (is_edge or labels.get(TIER_LABEL) == "cloud"):
            found.append(Node(profile_names(labels)[0], node["NodeID"], node["NodeManagerAddress"]))
    if not found:
        raise PlacementError(missing_labels(CLOUD, nodes))
    return sorted(found)


def _measure_shipped(contents: Mapping[str, bytes], repeats: int, threads: int) -> Profile:
    """Measure the bundle of these files; runs on the node."""
    with tempfile.TemporaryDirectory(prefix="xpi-") as folder:
        for name, data in contents.items():
            (Path(folder) / name).write_bytes(data)
        loaded = Bundle.load(folder)
    return measure_bundle(loaded, repeats, threads)
