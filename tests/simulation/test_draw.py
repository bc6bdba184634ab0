import numpy as np
import pytest

from xpi_ray.link.traces import Trace
from xpi_ray.simulation import draw
from xpi_ray.simulation.cluster import Cluster
from xpi_ray.simulation.draw import Sources, draw_site, machine_factors

SECONDS = 20.0


@pytest.fixture(scope="module")
def sources(steady):
    """Two links and a recording."""
    return Sources([steady(1e6), Trace("other", 2.0, np.array([1e6, 0, 3e5]))], [np.ones(100)])


@pytest.fixture(scope="module")
def sites(setting, sources):
    """Many sites."""
    rng = np.random.default_rng(0)
    return [draw_site(setting, sources, SECONDS, rng) for _ in range(300)]


def test_every_figure_is_in_its_range(setting, sites):
    """And over many sites the ranges are used."""
    whole_ms = sum(setting.profile.block_ms)
    for name, (low, high), unit in (
        ("edge_slowdown", draw.EDGES_MS, whole_ms),
        ("round_trip_ms", draw.ROUND_TRIPS_MS, 1),
        ("trace_scale", draw.SCALES, 1),
    ):
        values = [unit * getattr(site, name) for site in sites]
        assert low <= min(values) < low * 1.2 < high / 1.2 < max(values) <= high, name
    for site in sites:
        assert 0 <= site.trace_shift_s <= site.trace.duration_s
        assert ((site.arrivals >= 0) & (site.arrivals < 1000 * SECONDS)).all()
        assert ((site.samples >= 0) & (site.samples < 60)).all()
        assert (site.hops_ms > 0).all()
        fits = [
            ((site.deadlines_ms >= low) & (site.deadlines_ms <= high)).all()
            for low, high in draw.DEADLINE_MIXES
        ]
        assert any(fits)
        assert len(site.arrivals) / SECONDS < 3.2 * draw.MOST_RPS
    assert {site.trace.name for site in sites} == {"steady", "other"}
    Cluster(setting, sites)  # takes them all


def test_the_same_state_draws_the_same_site(setting, sources):
    """Every array of it; another state another one."""
    first, twin, other = (
        draw_site(setting, sources, SECONDS, np.random.default_rng(seed)) for seed in (5, 5, 6)
    )
    for name in ("arrivals", "samples", "deadlines_ms", "edge_factors", "cloud_factors", "hops_ms"):
        assert (getattr(first, name) == getattr(twin, name)).all()
    assert first.round_trip_ms == twin.round_trip_ms != other.round_trip_ms


def test_a_link_can_be_given(setting, sources, steady):
    """Then it is that one."""
    link = steady(7e6)
    rng = np.random.default_rng(0)
    assert draw_site(setting, sources, SECONDS, rng, link).trace is link


def test_sites_see_images_of_other_ease(setting, sites):
    """Every image comes up at some site, and at some the hard ones come more often."""
    ease = np.empty(60)
    ease[setting.by_ease] = np.linspace(0, 1, 60)
    assert setting.outcomes.entropy.mean(1)[setting.by_ease].argsort().tolist() == list(range(60))
    assert set(np.concatenate([site.samples for site in sites]).tolist()) == set(range(60))
    means = [ease[site.samples].mean() for site in sites if len(site.samples) > 100]
    low, high = draw.EASES
    assert min(means) == pytest.approx(1 / (1 + high), abs=0.05)
    assert max(means) == pytest.approx(1 / (1 + low), abs=0.05)


def test_machines_have_slow_spells(setting):
    """Most of the time a factor is near 1; in spells of seconds it is higher."""
    times = np.arange(0, 3_600_000, 100.0)
    factors = machine_factors(times, 3_600.0, np.random.default_rng(0))
    assert np.median(factors) == pytest.approx(1.0, abs=0.15)
    means = factors.reshape(-1, 10).mean(1)  # of each second
    share = (means > 1.15).mean()
    usual = draw.SPELL_S / (draw.SPELL_S + draw.BETWEEN_S)
    assert share == pytest.approx(usual, abs=0.12)
    assert means.max() < draw.SPELL_FACTORS[1] * 1.2
