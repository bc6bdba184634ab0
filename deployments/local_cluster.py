"""A Ray cluster on this machine alone: one edge node, one cloud node, every port on loopback.

    LocalCluster ─► head node (edge: clients come in here) + worker node (cloud) ─► applications

The edge is the head so that the ingress survives the cloud node, as it does in the field.
"""

import logging
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple, Self

import ray
from ray import serve
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.cluster_utils import Cluster
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.context import _get_global_client
from ray.serve.schema import LoggingConfig

from deployments import app
from deployments.args import (
    CLOUD_APP,
    SCHEDULER_APP,
    CloudArgs,
    SchedulerArgs,
    SiteArgs,
    site_app_name,
)
from deployments.flags import Proxy, apply, local_flags
from deployments.placement import CLOUD, edge_of

LOOPBACK = "127.0.0.1"
STORE_BYTES = 100 << 20  # requests travel by value; the object store is hardly used
CPUS = 8  # what the replicas may ask for; Ray only counts


class Replica(NamedTuple):
    """One running replica, as Serve's controller knows it."""

    app: str
    deployment: str
    pid: int
    labels: dict[str, str]
    """Of the node that it runs on."""


class LocalCluster:
    """Use it as a context: nodes start on entry, and all that it started stops on exit.

    Args:
        site: Name of the edge node's site.
        port: Where HTTP is served, on 127.0.0.1.
        proxy: ``haproxy``, or Serve's slower own ``python``.
    """

    def __init__(self, site: str = "site-1", port: int = 8000, proxy: Proxy = "haproxy") -> None:
        self.site = site
        self.port = port
        self.proxy = proxy
        self._folder = tempfile.TemporaryDirectory(prefix="xpi-")
        self._environment = dict(os.environ)
        self._cluster: Cluster | None = None
        self._cloud_node: Any = None

    @property
    def url(self) -> str:
        """Where requests go."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def joining(self) -> str:
        """What a program on this machine is to be told to join: its environment, in a shell's form.

        Only while the cluster runs; the token's file ends with it.
        """
        assert self._cluster is not None
        names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")
        environment = " ".join(f"{name}={os.environ[name]}" for name in names)
        return f"{environment} RAY_ADDRESS={self._cluster.address}"

    def __enter__(self) -> Self:
        apply(local_flags(self.proxy, Path(self._folder.name)))
        Config.initialize("")  # Ray read its settings when it was imported
        AuthenticationTokenLoader.instance().reset_cache()
        self._cluster = Cluster(
            initialize_head=True, connect=False, head_node_args=_node(edge_of(self.site))
        )
        self.add_cloud_node()
        # Else Ray swaps 127.0.0.1 for the machine's outer address, where nothing of ours listens.
        ray_constants.ENABLE_RAY_CLUSTER = False
        ray.init(
            address=self._cluster.address,
            _node_ip_address=LOOPBACK,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        serve.start(
            proxy_location=ProxyLocation.HeadOnly,
            http_options=HTTPOptions(host=LOOPBACK, port=self.port),
            logging_config=LoggingConfig(enable_access_log=False, log_level="WARNING"),
        )
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()
        if self._cluster is not None:
            self._cluster.shutdown()
        self._folder.cleanup()
        os.environ.clear()
        os.environ.update(self._environment)

    def replicas(self) -> list[Replica]:
        """Every running replica and the labels of its node."""
        labels = {node["NodeID"]: node["Labels"] for node in ray.nodes()}
        controller = _get_global_client()._controller
        details = ray.get(controller.get_serve_instance_details.remote())
        return [
            Replica(app_name, name, replica["pid"], labels.get(replica["node_id"], {}))
            for app_name, application in details["applications"].items()
            for name, deployment in application["deployments"].items()
            for replica in deployment["replicas"]
            if replica["state"] == "RUNNING"
        ]

    def add_edge_node(self, site: str) -> None:
        """Start an edge node of one more site."""
        assert self._cluster is not None
        self._cluster.add_node(**_node(edge_of(site)))

    def add_cloud_node(self) -> None:
        """Start the cloud node, also again after it was killed."""
        assert self._cluster is not None
        self._cloud_node = self._cluster.add_node(**_node(CLOUD))

    def kill_cloud_node(self) -> None:
        """Kill the cloud node at once, with all that runs there."""
        assert self._cluster is not None
        self._cluster.remove_node(self._cloud_node, allow_graceful=False)

    def deploy(
        self, site: SiteArgs, cloud: CloudArgs, scheduler: SchedulerArgs | None = None
    ) -> None:
        """Deploy the applications and wait until they run; no scheduler means static plans."""
        serve.run(app.cloud(cloud), name=CLOUD_APP, route_prefix=None)
        if scheduler is not None:
            serve.run(app.scheduler(scheduler), name=SCHEDULER_APP, route_prefix=None)
        # Last, so that the first request that gets in already goes by the scheduler's plans.
        serve.run(app.site(site), name=site_app_name(site.site), route_prefix="/")


def _node(labels: dict[str, str]) -> dict[str, Any]:
    return {
        "num_cpus": CPUS,
        "labels": labels,
        "object_store_memory": STORE_BYTES,
        "include_dashboard": False,
        "node_ip_address": LOOPBACK,
    }
