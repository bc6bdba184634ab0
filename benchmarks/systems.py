"""Systems that the comparison runs: which bundle each serves, and how it is deployed.

    name, dataset ─► peer | without ─► System ─ Edge ─► config: the YAML that a user would deploy

Xpi and its peers go through the same product: a bundle (network, codec, profiles, static plan), a
policy of the scheduler, arguments of the site. Bundles of peers and of ablations are made
beforehand and lie in ``runs/peers/<dataset>/<bundle>``; Xpi's are the packaged ones.

A peer that its paper does not let answer with an unsure exit is deployed without
``best_effort``: what it has not finished by the deadline is no answer. SPINN's paper lets it
answer with the surest exit, and its edge goes on while a frame is in flight. What waits for a
peer's edge is not sent elsewhere: no paper of theirs says so. Peers may send images
whole (``least_partition`` 0), as in their papers; Xpi keeps one block at the edge.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import yaml

from deployments.args import (
    CLOUD_APP,
    SCHEDULER_APP,
    CloudArgs,
    SchedulerArgs,
    SiteArgs,
    site_app_name,
)
from xpi_ray.bundle import SUMS, Bundle, find

DATASETS = ("cifar10", "tiny_imagenet")
BUNDLES = Path("runs") / "peers"
EDGEML_POLICY = Path("edgeml_policy") / "policy.safetensors"  # beside its bundle
XPI = "xpi"
NOTHING = "nothing"
PACKAGED = "packaged"  # stands for Xpi's own bundle of a data set
BLOCKS = 12  # of every network here
SITE = "site-1"
PORT = 8000
YAML = {  # what is not of an application, as in deployments/edge_cloud.yaml
    "proxy_location": "EveryNode",
    "http_options": {"host": "127.0.0.1", "port": PORT},
    "logging_config": {"log_level": "WARNING", "enable_access_log": False},
}
NONE: Mapping[str, Any] = MappingProxyType({})


class Edge(NamedTuple):
    """What a deployment is told of the edge that it comes to."""

    slowdown: float = 1.0
    """How many times longer blocks take there than by the bundle's profile."""
    round_trip_ms: float = 5.0
    """Of a call to the cloud beside its work."""
    replicas: int = 0
    """Processes that run blocks; 0: the router does."""


class Wiring(NamedTuple):
    """How a system is put together, whatever the data set."""

    bundle: str
    """Name of its folder, or ``PACKAGED``."""
    policy: str | None = None
    """The scheduler's; None: there is no scheduler, and the site's static plan holds."""
    site: Mapping[str, Any] = NONE
    """Arguments of the site, beside those that all have."""
    scheduler: Mapping[str, Any] = NONE
    """Likewise of the scheduler."""


class System(NamedTuple):
    """One side of the comparison."""

    name: str
    dataset: str
    wiring: Wiring

    @property
    def folder(self) -> Path:
        """Of its bundle, whether it is there or not."""
        if self.wiring.bundle == PACKAGED:
            return find(self.dataset)
        return BUNDLES / self.dataset / self.wiring.bundle

    @property
    def is_there(self) -> bool:
        """Whether all that it is made of was made."""
        return (self.folder / SUMS).is_file() and (
            self.wiring.policy != "edgeml" or self._edgeml_policy.is_file()
        )

    @property
    def _edgeml_policy(self) -> Path:
        return BUNDLES / self.dataset / EDGEML_POLICY

    def load(self) -> Bundle:
        """Its bundle; BundleError where that is missing."""
        return Bundle.load(self.folder)

    def site_args(self, edge: Edge) -> SiteArgs:
        """Of its one site."""
        changes = {"edge_replicas": edge.replicas, **self.wiring.site}
        return SiteArgs(site=SITE, bundle=self._absolute, **changes)

    def scheduler_args(self, edge: Edge) -> SchedulerArgs | None:
        """Of its scheduler, if it has one."""
        if self.wiring.policy is None:
            return None
        changes: dict[str, Any] = {
            "policy": self.wiring.policy,
            "edge_slowdown": edge.slowdown,
            "round_trip_ms": edge.round_trip_ms,
            **self.wiring.scheduler,
        }
        if self.wiring.policy == "edgeml":
            changes["policy_file"] = str(self._edgeml_policy.resolve())
        return SchedulerArgs(bundle=self._absolute, **changes)

    def config(self, edge: Edge) -> str:
        """YAML for `serve deploy`."""
        site, scheduler = self.site_args(edge), self.scheduler_args(edge)
        applications = [
            _application(CLOUD_APP, "cloud", CloudArgs(bundle=self._absolute)),
            _application(site_app_name(SITE), "site", site, "/"),
        ]
        if scheduler is not None:
            applications.append(_application(SCHEDULER_APP, "scheduler", scheduler))
        return yaml.safe_dump({**YAML, "applications": applications}, sort_keys=False)

    @property
    def _absolute(self) -> str:
        return str(self.folder.resolve())  # replicas have folders of their own


def _application(
    name: str,
    function: str,
    args: CloudArgs | SiteArgs | SchedulerArgs,
    route_prefix: str | None = None,
) -> dict[str, Any]:
    return {
        "name": name,
        "route_prefix": route_prefix,
        "import_path": f"deployments.app:{function}",
        "args": args.model_dump(mode="json", exclude_defaults=True),
    }


WAITS: Mapping[str, Any] = {"reroutes": False}
ABORTS: Mapping[str, Any] = {"best_effort": False, **WAITS}
ANYWHERE: Mapping[str, Any] = {"least_partition": 0}
PEERS = {
    XPI: Wiring(PACKAGED, "learned"),
    "edgent": Wiring("edgent", "edgent", ABORTS, ANYWHERE),
    "edgent_dynamic": Wiring("edgent", "edgent_dynamic", ABORTS, ANYWHERE),
    "spinn": Wiring("spinn", "spinn", {"answers": "surest", "goes_on": True, **WAITS}, ANYWHERE),
    "edgeml": Wiring("edgeml", "edgeml", ABORTS, ANYWHERE),
    "branchynet": Wiring("branchynet", "static", ABORTS),
    "neurosurgeon": Wiring("neurosurgeon", "neurosurgeon", ABORTS, ANYWHERE),
    "deepcod": Wiring("deepcod", "static", ABORTS),
    "edge_only": Wiring("edge_only", "static", ABORTS),
    "cloud_only": Wiring("cloud_only", "static", ABORTS),
}
"""Those of the poster's Figure 4, and more, by name."""
ABLATIONS = {
    NOTHING: PEERS[XPI],
    "plain_training": Wiring("xpi_without_plain_training", "learned"),
    "learned_compression": Wiring("xpi_without_learned_compression", "learned"),
    "images": Wiring("xpi_without_images", "learned"),
    "early_exit": Wiring("xpi_without_early_exit", "learned", {"early_exit": False}),
    "partition_edge": Wiring(PACKAGED, site={"partition": BLOCKS}),
    "partition_cloud": Wiring(PACKAGED, site={"partition": 0}),
    "learning": Wiring(PACKAGED, "least_latency"),
    "best_effort": Wiring(PACKAGED, "learned", {"best_effort": False}),
    "reroutes": Wiring(PACKAGED, "learned", WAITS),
}
"""Xpi without one of its parts, by that part; ``benchmarks.ablated`` makes the bundles of some."""
WHOLE = {
    end: Wiring(PACKAGED, site={"partition": partition, "early_exit": False, **WAITS})
    for end, partition in (("edge", BLOCKS), ("cloud", 0))
}
"""All of Xpi's network at one end."""


def peer(name: str, dataset: str) -> System:
    """One of ``PEERS``."""
    return System(name, dataset, PEERS[name])


def without(part: str, dataset: str) -> System:
    """Xpi without one of ``ABLATIONS``; without nothing it is Xpi, whose runs are the same."""
    if part == NOTHING:
        return peer(XPI, dataset)
    return System(f"without_{part}", dataset, ABLATIONS[part])


def whole_at(end: str, dataset: str) -> System:
    """One of ``WHOLE``: by what it takes at the edge, share and loads are set."""
    return System(f"whole_at_{end}", dataset, WHOLE[end])
