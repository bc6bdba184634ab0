"""Where replicas go: node labels, and a preflight that names a missing one instead of hanging.

ray.nodes() ─► require(selector) ─► PlacementError, or the application is built
"""

from collections.abc import Iterable, Mapping

import ray

from xpi_ray.errors import PlacementError

TIER_LABEL, SITE_LABEL = "xpi-tier", "xpi-site"

CLOUD = {TIER_LABEL: "cloud"}


def edge_of(site: str) -> dict[str, str]:
    """The labels of the nodes of one site."""
    return {TIER_LABEL: "edge", SITE_LABEL: site}


def as_option(labels: Mapping[str, str]) -> str:
    """Labels as ``ray start --labels`` takes them."""
    return ",".join(f"{key}={value}" for key, value in labels.items())


def require(labels: Mapping[str, str]) -> None:
    """Check that a living node carries all of ``labels``.

    Ray waits without a word for a node that never comes; this says what to do.

    Raises:
        PlacementError: No node does; the message lists the labels that there are.
    """
    missing = missing_labels(labels, ray.nodes())
    if missing:
        raise PlacementError(missing)


def missing_labels(labels: Mapping[str, str], nodes: Iterable[Mapping[str, object]]) -> str:
    """What to tell the user when no living node of ``nodes`` carries ``labels``; else empty."""
    living = [node["Labels"] for node in nodes if node["Alive"]]
    if any(isinstance(node, Mapping) and labels.items() <= node.items() for node in living):
        return ""
    wanted = as_option(labels)
    present = [
        as_option({key: value for key, value in node.items() if key.startswith("xpi-")}) or "none"
        for node in living
        if isinstance(node, Mapping)
    ]
    return (
        f"no living node is labelled {wanted} (labels of the {len(present)} living nodes: "
        f"{'; '.join(present) or 'none'}); start one with "
        f"`ray start --address=HEAD:6379 --labels={wanted}`"
    )
