import hashlib
import shutil

import pytest

from xpi_ray.bundle import POLICY, SUMS, Bundle
from xpi_ray.errors import BundleError
from xpi_ray.policies import learned
from xpi_ray.policies.catalogue import candidates


@pytest.fixture
def policy(bundle, make_policy):
    """A policy's file for the small bundle."""
    return make_policy(bundle)


@pytest.fixture
def folder(bundle, policy, tmp_path):
    """The small bundle with a policy, to be spoilt."""
    bundle.with_policy(policy).save(tmp_path / "with")
    return tmp_path / "with"


def test_a_policy_is_loaded_as_it_was_saved(policy, folder, bundle_folder):
    """Its bytes come back, and a bundle without one has none."""
    assert Bundle.load(folder).policy == policy
    assert Bundle.load(bundle_folder).policy is None


def test_another_policy_is_another_bundle(bundle, make_policy, folder, bundle_folder, tmp_path):
    """The digest is that of all files, the policy's too; in memory it is not known yet."""
    bundle.with_policy(make_policy(bundle, 1)).save(tmp_path / "other")
    digests = {Bundle.load(each).digest for each in (folder, bundle_folder, tmp_path / "other")}
    assert len(digests) == 3
    assert Bundle.load(folder).with_policy(b"").digest == b""


def test_a_policy_does_not_outlive_its_bundle(bundle, folder):
    """A bundle without one that is saved over it leaves none behind."""
    bundle.save(folder)
    assert not (folder / POLICY).exists()
    assert Bundle.load(folder).policy is None


def test_a_damaged_or_missing_policy_is_named(folder):
    """Its hash is checked as the other files' are."""
    data = (folder / POLICY).read_bytes()
    (folder / POLICY).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BundleError, match=f"{POLICY} is damaged"):
        Bundle.load(folder)
    (folder / POLICY).unlink()
    with pytest.raises(BundleError, match=f"{POLICY} cannot be read"):
        Bundle.load(folder)


def test_a_policy_that_is_not_listed_is_not_read(bundle_folder, policy, tmp_path):
    """A stray file changes nothing."""
    copy = shutil.copytree(bundle_folder, tmp_path / "copy")
    (copy / POLICY).write_bytes(policy)
    assert Bundle.load(copy).policy is None


def test_a_huge_policy_is_refused(folder):
    """Its size is bounded, also where the hash is right."""
    data = bytes(learned.MAX_FILE_BYTES + 1)
    (folder / POLICY).write_bytes(data)
    lines = [line for line in (folder / SUMS).read_text().splitlines() if POLICY not in line]
    lines.append(f"{hashlib.sha256(data).hexdigest()}  {POLICY}")
    (folder / SUMS).write_text("\n".join(lines) + "\n")
    with pytest.raises(BundleError, match="larger than"):
        Bundle.load(folder)


def test_candidates_are_every_plan_of_the_bundles_thresholds(bundle):
    """Their order is the catalogue's, strictest thresholds first, as policy files count on it."""
    thresholds = [calibration.thresholds for calibration in bundle.manifest.calibrations]
    expected = [each.decision for each in candidates(bundle.levelled(), thresholds)]
    assert [each.decision for each in bundle.candidates()] == expected
