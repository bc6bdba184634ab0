"""A make-believe bundle and sites whose every figure is known."""

from dataclasses import replace

import numpy as np
import pytest

from xpi_ray.link.traces import Trace
from xpi_ray.policies.base import Decision
from xpi_ray.policies.plan import SloClass
from xpi_ray.profiles.table import Profile
from xpi_ray.simulation.cluster import Machines, Setting, Site

CLASSES = tuple(
    SloClass(name=name, deadline_ms=ms) for name, ms in (("b", 100), ("a", 20), ("c", 400))
)
NEVER = (0.0,) * 4


@pytest.fixture(scope="session")
def steady():
    """Makes a link whose rate never changes."""
    return lambda bps: Trace("steady", 1.0, np.array([float(bps)]))


@pytest.fixture(scope="session")
def setting(make_outcomes):
    """Four blocks of 1, 2, 3, 4 ms; the static plan splits after block 2 and never leaves early."""
    profile = Profile(
        machine="a toaster",
        threads=1,
        block_ms=(1.0, 2.0, 3.0, 4.0),
        batch_ms=tuple((ms, 1.5 * ms, 2.5 * ms, 4 * ms, 7 * ms) for ms in (1.0, 2.0, 3.0, 4.0)),
        batch_p95_ms=((9.0,) * 5,) * 4,
        encode_ms=0.5,
        decode_ms=0.25,
    )
    return Setting(profile, make_outcomes(0), CLASSES, Decision(2, NEVER, 0))


@pytest.fixture(scope="session")
def with_machines(setting):
    """The setting with another cloud or other bounds."""
    return lambda **changes: replace(setting, machines=Machines(**changes))


@pytest.fixture(scope="session")
def make_site(setting, steady):
    """Makes a site without noise from times of arrival; the link carries 8 Mbit/s."""

    def make(arrivals, **changes):
        arrivals = np.array(arrivals, np.float64)
        count = len(arrivals)
        facts = {
            "arrivals": arrivals,
            "samples": np.arange(count) % setting.num_samples,
            "deadlines_ms": np.full(count, 200.0),
            "edge_factors": np.ones(count),
            "cloud_factors": np.ones(count),
            "hops_ms": np.ones(count),
            "trace": steady(8e6),
        }
        for name, value in changes.items():
            each = name in facts and name != "trace"
            facts[name] = np.broadcast_to(value, count).copy() if each else value
        return Site(**facts)

    return make


@pytest.fixture(scope="session")
def random_site(make_site):
    """Makes a site with noise of all kinds."""

    def make(seed, count=120, rate_rps=60.0, deadlines_ms=(20.0, 300.0), **changes):
        rng = np.random.default_rng(seed)
        return make_site(
            np.cumsum(rng.exponential(1000 / rate_rps, count)),
            **{
                "samples": rng.integers(60, size=count),
                "deadlines_ms": rng.uniform(*deadlines_ms, count),
                "edge_factors": np.exp(rng.normal(0, 0.3, count)),
                "cloud_factors": np.exp(rng.normal(0, 0.3, count)),
                "hops_ms": rng.gamma(6.0, 0.25, count),
                "trace": Trace("random", 0.1, rng.exponential(1e5, 30)),
                "trace_shift_s": rng.uniform(0, 3),
                "round_trip_ms": rng.uniform(0, 20),
                "edge_slowdown": rng.uniform(0.5, 4),
                **changes,
            },
        )

    return make
