"""The environment that a cluster's processes are started with: what makes Serve fast, and safe.

    flags(proxy) ─► environment of `ray start` (or of this process, before its cluster starts)

HAProxy takes 0.5 ms for what Serve's own proxy takes 2.8 ms for; user code and handles on one event
loop halve a hop between replicas. cluster.yaml sets the same flags by hand.
"""

import os
import secrets
import stat
from pathlib import Path
from typing import Literal

from ray.serve._private.haproxy import get_haproxy_binary

from xpi_ray.link.frame import MAX_FRAME_BYTES

Proxy = Literal["haproxy", "python"]

FAST = {
    # The largest frame, with room for what travels beside it.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(MAX_FRAME_BYTES + (1 << 20)),
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
}
PROXIES: dict[Proxy, dict[str, str]] = {
    "haproxy": {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_HAPROXY_NBTHREAD": "1"},
    "python": {"RAY_SERVE_ENABLE_HA_PROXY": "0", "RAY_SERVE_PROXY_USE_GRPC": "1"},
}
# A node that dies is noticed in about a second, instead of ten.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "500",
    "RAY_health_check_failure_threshold": "3",
}
# For a cluster of one user on one machine.
LOCAL = {
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.1",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}

_LOOPBACK_HAPROXY = """#!/bin/sh
# Serve's HAProxy opens its metrics and statistics pages on all interfaces; keep them on this one.
for argument; do
    case "$argument" in
        *.cfg*) sed -i -e 's/bind \\*\\{{0,1\\}}:/bind 127.0.0.1:/' "$argument" ;;
    esac
done
exec "{binary}" "$@"
"""


def flags(proxy: Proxy) -> dict[str, str]:
    """The environment for a cluster's processes."""
    return {**FAST, **HEALTH, **PROXIES[proxy]}


def local_flags(proxy: Proxy, folder: Path) -> dict[str, str]:
    """The environment for a cluster on this machine alone, whose files lie in ``folder``."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    environment = {
        **flags(proxy),
        **LOCAL,
        # Ray's processes talk to each other in pickles: only to those who know the token.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
    }
    if proxy == "haproxy":
        wrapper = folder / "haproxy"
        wrapper.write_text(_LOOPBACK_HAPROXY.format(binary=get_haproxy_binary()))
        wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
        environment |= {
            "RAY_SERVE_HAPROXY_BINARY_PATH": str(wrapper),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "haproxy.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "haproxy.state"),
        }
    return environment


def apply(environment: dict[str, str]) -> None:
    """Set what the user has not set; processes started from here on inherit it."""
    for name, value in environment.items():
        os.environ.setdefault(name, value)
