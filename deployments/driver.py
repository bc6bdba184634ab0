"""A program that joins a running cluster for a while: `xpi profile`, `xpi preempt`."""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import ray_constants, services

from xpi_ray.errors import TierLostError

LOOPBACK = ("127.0.0.1:", "localhost:")
PATIENCE_S = 10.0  # for a head to answer
ADDRESS_HELP = (
    "HOST:PORT of its head, with a node of it here, ray://HOST:PORT from elsewhere, or auto."
)


@contextmanager
def joined(address: str) -> Iterator[None]:
    """Be a driver of a running cluster; whatever it still runs for this one ends with it.

    Args:
        address: ``HOST:PORT`` of the cluster's head, with a node of it on this machine;
            ``ray://HOST:PORT`` from elsewhere; or ``auto`` for the cluster that runs here.

    Raises:
        TierLostError: There is no such cluster.
    """
    settings: dict[str, Any] = {}
    try:
        if address == "auto":
            address = services.get_ray_address_from_environment(address, None)
        host, _, port = address.removeprefix("ray://").rpartition(":")
        socket.create_connection((host, int(port)), PATIENCE_S).close()  # Ray tries for minutes
        if address.startswith(LOOPBACK):
            # Else Ray swaps it for the machine's outer address, where nothing of ours listens.
            ray_constants.ENABLE_RAY_CLUSTER = False
            settings["_node_ip_address"] = "127.0.0.1"
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **settings)
    except (OSError, RuntimeError, ValueError, AssertionError) as err:
        raise TierLostError(
            f"no Ray cluster to join at {address} ({err}); expected HOST:PORT of its head, "
            "ray://HOST:PORT, or auto where one runs on this machine, and RAY_AUTH_TOKEN_PATH if "
            "it asks for a token"
        ) from err
    try:
        yield
    finally:
        ray.shutdown()
