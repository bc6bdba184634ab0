import shutil

import pytest
import torch

from xpi_ray import bundle as module
from xpi_ray.bundle import (
    CENTRES,
    CODECS,
    ELASTIC,
    MANIFEST,
    OUTCOMES,
    POLICY,
    SUMS,
    WEIGHTS,
    Bundle,
    find,
)
from xpi_ray.compression.ladder import LEVELS
from xpi_ray.errors import BundleError
from xpi_ray.policies.learned import from_bytes
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SLO_CLASSES

FILES = (MANIFEST, WEIGHTS, CODECS, OUTCOMES, SUMS)
MAX_BYTES = 10 << 20


def test_what_is_no_bundle_lists_those_there_are(tmp_path, monkeypatch):
    """A folder without a manifest is refused, and the packaged bundles are named."""
    packaged = tmp_path / "packaged"
    monkeypatch.setattr(module, "PACKAGED", packaged)
    with pytest.raises(BundleError, match="packaged bundles: none"):
        find(tmp_path)
    for name in ("pets", "flowers"):
        (packaged / name).mkdir(parents=True)
    with pytest.raises(BundleError, match="packaged bundles: flowers, pets"):
        find(tmp_path)


def test_a_packaged_bundle_goes_by_its_name(bundle_folder, tmp_path, monkeypatch):
    """A name is looked for here and then in the package; a folder of that name comes first."""
    monkeypatch.setattr(module, "PACKAGED", bundle_folder.parent)
    monkeypatch.chdir(tmp_path)
    name = bundle_folder.name
    assert find(name) == bundle_folder
    shutil.copytree(bundle_folder, tmp_path / name)
    assert find(name).resolve() == (tmp_path / name).resolve()
    monkeypatch.setattr(module, "DEFAULT", name)
    assert find(None) == find(name)


def test_the_default_bundle_is_whole(monkeypatch, tmp_path):
    """CIFAR-10 comes with the package: twelve blocks, ten labels and a plan that fits."""
    monkeypatch.chdir(tmp_path)
    loaded = Bundle.load()
    manifest = loaded.manifest
    assert (manifest.name, loaded.network.num_blocks) == ("cifar10", 12)
    assert len(set(manifest.labels)) == loaded.network.num_classes == 10
    assert loaded.ladder.levels == LEVELS
    manifest.static_plan.check(12, LEVELS)
    assert manifest.static_plan.version == 0
    assert loaded.outcomes.entropy.shape[1] == 12
    assert sorted(manifest.macs) == list(manifest.macs)


def test_packaged_bundles_are_small_and_hold_nothing_else():
    """Each has its files and no others, together below 10 MiB."""
    for folder in module.PACKAGED.iterdir():
        files = list(folder.iterdir())
        assert {file.name for file in files} - {CENTRES, POLICY} == {*FILES, ELASTIC}
        assert sum(file.stat().st_size for file in files) < MAX_BYTES


def test_the_packaged_policy_decides():
    """It is of this bundle's plans, keeps a block at the edge, and sends less over slow links."""
    bundle = Bundle.load()
    policy = from_bytes(bundle.policy, bundle.manifest.profiles["default"], bundle.candidates())
    sizes = []
    for link_bps in (50e6, 5e4):
        seen = Observation(edge_slowdown=8, link_bps=link_bps, link_spread=0.4, arrivals_rps=10)
        plans = [policy.decide(seen, slo) for slo in SLO_CLASSES]
        assert all(plan.partition >= 1 for plan in plans)
        frames = bundle.outcomes.frame_bytes
        crossing = [plan for plan in plans if plan.partition < 12]
        sizes.append(sum(float(frames[plan.level, plan.partition]) for plan in crossing))
    assert sizes[1] < sizes[0]


def test_the_default_bundle_serves(monkeypatch, tmp_path):
    """Its network, made ready to serve, gives every exit's finite logits."""
    monkeypatch.chdir(tmp_path)
    network = Bundle.load().network.prepare()
    exits = network(torch.zeros(1, 3, *network.image_size, dtype=torch.uint8))
    assert len(exits) == 12
    assert all(exit_.isfinite().all() for exit_ in exits)
