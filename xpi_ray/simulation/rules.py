"""The server's own rules, made known to the compiler: what runs in the simulator is what serves.

exits, inference, link ─► register ─► engine (Numba compiles these very functions)

What was compiled is kept in the user's cache folder, by the text of all that goes into it.
"""

import hashlib
import inspect
import os
import sys
from pathlib import Path

from numba import config
from numba.extending import register_jitable

from xpi_ray.exits.rule import is_sure
from xpi_ray.inference.backlog import renewed_turn, turn_ms
from xpi_ray.inference.budget import allows
from xpi_ray.inference.cloud import pressing
from xpi_ray.inference.flow import kept_back_ms
from xpi_ray.inference.pace import is_long, renewed
from xpi_ray.link import estimator, traces
from xpi_ray.simulation import columns, heap, ring, state, turns

RULES = (
    is_sure,
    allows,
    pressing,
    kept_back_ms,
    estimator.sendable_bytes,
    estimator.sending_ms,
    renewed,
    turn_ms,
    renewed_turn,
    is_long,
    traces.carried_by,
    traces.delivered_s,
    estimator.begin,
    estimator.learn,
    estimator.learn_late,
    estimator.spread,
    estimator._age,
    estimator._correct,
    estimator._covariances,
    estimator._learn_jitter,
    estimator._bound_delay,
    heap.push,
    heap.pop,
    ring.remember,
    ring.recent,
    turns.enter,
    turns.leave,
)


def register(*modules: str) -> None:
    """Let compiled functions call the rules, and keep what is compiled from here on.

    Args:
        modules: Names of the one that is about to be compiled and of others that it calls.
    """
    for rule in RULES:
        register_jitable(rule)
    names = sorted({*modules, state.__name__, columns.__name__, *(r.__module__ for r in RULES)})
    text = "".join(inspect.getsource(sys.modules[name]) for name in names)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    folder = cache / "xpi_ray" / "compiled" / digest
    config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
