import dataclasses
import hashlib
import json
import shutil
import subprocess

import numpy as np
import pytest
import torch
from safetensors.numpy import save as save_arrays

from xpi_ray import bundle as module
from xpi_ray.bundle import DIGEST_BYTES, MANIFEST, OUTCOMES, SUMS, WEIGHTS, Bundle, find
from xpi_ray.compression.codec import LADDER
from xpi_ray.errors import BundleError

FILES = (MANIFEST, WEIGHTS, OUTCOMES, SUMS)
MAX_DEFAULT_BYTES = 10 << 20


@pytest.fixture
def folder(bundle_folder, tmp_path):
    """A copy of the small bundle, to be spoilt."""
    return shutil.copytree(bundle_folder, tmp_path / "copy")


def seal(folder):
    """Make the hashes right again, as one who forges a bundle would."""
    names = (MANIFEST, OUTCOMES, WEIGHTS)
    hashes = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names]
    lines = [f"{digest}  {name}\n" for digest, name in zip(hashes, names, strict=True)]
    (folder / SUMS).write_text("".join(lines))


def rewrite(folder, **changes):
    """Change values of the manifest, and seal the bundle."""
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))
    seal(folder)


def test_what_is_saved_is_loaded(bundle, bundle_folder):
    """Manifest and weights come back to the last bit, outcomes as exact as they are kept."""
    loaded = Bundle.load(bundle_folder)
    assert loaded.manifest == bundle.manifest
    saved = bundle.network.state_dict()
    assert loaded.network.state_dict().keys() == saved.keys()
    for name, weights in loaded.network.state_dict().items():
        assert weights.dtype == saved[name].dtype
        assert torch.equal(weights, saved[name]), name
    kept = bundle.outcomes.to_arrays()
    for name, array in loaded.outcomes.to_arrays().items():
        assert np.array_equal(array, kept[name]), name


def test_saving_what_was_loaded_gives_the_same_files(bundle_folder, tmp_path):
    """A bundle's bytes depend on what it holds alone, and so does its digest."""
    loaded = Bundle.load(bundle_folder)
    loaded.save(tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (bundle_folder / name).read_bytes()
    assert Bundle.load(tmp_path / "again").digest == loaded.digest
    assert len(loaded.digest) == DIGEST_BYTES


def test_another_bundle_has_another_digest(bundle, folder):
    """Any change of content changes the identity that frames carry."""
    before = Bundle.load(folder).digest
    rewrite(folder, description="another one")
    assert Bundle.load(folder).digest != before


def test_a_saved_bundle_replaces_another(bundle, folder):
    """Saving over a bundle leaves no part of the old one."""
    manifest = bundle.manifest.model_copy(update={"version": "8"})
    dataclasses.replace(bundle, manifest=manifest).save(folder)
    assert Bundle.load(folder).manifest.version == "8"


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed here")
def test_the_sums_are_those_of_the_tool(bundle_folder):
    """`sha256sum -c SHA256SUMS` checks the three files and finds them whole."""
    ran = subprocess.run(
        ["sha256sum", "-c", SUMS], cwd=bundle_folder, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines() == [f"{name}: OK" for name in (MANIFEST, OUTCOMES, WEIGHTS)]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    """Without any one of its files a bundle is refused by that file's name."""
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name} cannot be read .*; get the bundle anew"):
        Bundle.load(folder)


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS, OUTCOMES])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_file_is_named(folder, name, damage):
    """One flipped byte or a missing end is noticed before the file is read."""
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes({"flip": content, "cut": content[:-1], "empty": b""}[damage])
    with pytest.raises(BundleError, match=f"{name} is damaged: expected sha256 .* found"):
        Bundle.load(folder)


def test_no_byte_of_the_sums_can_change(folder):
    """A flipped byte of a hash, or of a name, is noticed."""
    sums = (folder / SUMS).read_bytes()
    for place in range(len(sums)):
        damaged = bytearray(sums)
        damaged[place] ^= 1
        (folder / SUMS).write_bytes(damaged)
        with pytest.raises(BundleError):
            Bundle.load(folder)


def test_a_file_that_is_not_listed_is_refused(folder):
    """Every file that is read has a hash."""
    lines = (folder / SUMS).read_text().splitlines(keepends=True)
    (folder / SUMS).write_text("".join(line for line in lines if WEIGHTS not in line))
    with pytest.raises(BundleError, match=f"does not list {WEIGHTS}"):
        Bundle.load(folder)


def test_a_huge_file_is_not_read(folder, monkeypatch):
    """The limit on a file's size holds before it is read."""
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 1_000)
    with pytest.raises(BundleError, match="larger than 1000 bytes"):
        Bundle.load(folder)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{", b"weights"])
def test_a_manifest_that_is_no_json_is_refused(folder, content):
    """Whatever is in its place, the message says that it is not JSON."""
    (folder / MANIFEST).write_bytes(content)
    seal(folder)
    with pytest.raises(BundleError, match="is not JSON"):
        Bundle.load(folder)


@pytest.mark.parametrize("content", ["[]", "7", "null", "{}", '{"format": "onnx"}'])
def test_a_foreign_manifest_is_refused(folder, content):
    """JSON that is no bundle's manifest is not taken for one."""
    (folder / MANIFEST).write_text(content)
    seal(folder)
    with pytest.raises(BundleError, match="not a bundle of this project"):
        Bundle.load(folder)


@pytest.mark.parametrize("version", [2, "1", None])
def test_a_newer_format_asks_for_an_upgrade(folder, version):
    """A format that this software does not know is named before anything else is looked at."""
    rewrite(folder, format_version=version, network=None)
    with pytest.raises(BundleError, match=f"bundle format {version}, .* upgrade xpi-ray"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"author": "?"}, "author"),
        ({"name": "../etc"}, "name"),
        ({"version": ""}, "version"),
        ({"labels": ["one"]}, "labels"),
        ({"profiles": {}}, "profiles"),
        ({"calibrations": []}, "calibrations"),
        ({"macs": [1, 2, 3]}, "must have 3 block times"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_wrong_manifest_is_refused(folder, changes, message):
    """Unknown keys and impossible values are named."""
    rewrite(folder, **changes)
    with pytest.raises(BundleError, match=f"(?s)is not a manifest: .*{message}"):
        Bundle.load(folder)


def test_the_manifests_parts_must_fit(bundle, folder):
    """A profile must be the default, and each calibration have a threshold for every block."""
    manifest = bundle.manifest.model_dump(mode="json")
    rewrite(folder, profiles={"edge": manifest["profiles"]["default"]})
    with pytest.raises(BundleError, match="profile named 'default'"):
        Bundle.load(folder)
    short = {**manifest["calibrations"][0], "thresholds": [0.5]}
    rewrite(folder, profiles=manifest["profiles"], calibrations=[short])
    with pytest.raises(BundleError, match="every calibration must have 4 thresholds"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": list("abcd")}, "4 labels and 4 block costs for a network of 5 classes"),
        ({"network": {"kind": "resnet", "spec": {}}}, "unknown kind of network 'resnet'"),
        ({"network": {"kind": "xpi", "spec": {}}}, "XpiSpec"),
    ],
    ids=["labels", "kind", "spec"],
)
def test_parts_that_do_not_hold_together_are_refused(folder, changes, message):
    """A manifest for another network than the weights' is refused."""
    rewrite(folder, **changes)
    with pytest.raises(BundleError, match=f"(?s)does not hold together: .*{message}"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"partition": 5}, "partition 5"), ({"level": 3}, "level 3"), ({"thresholds": [1]}, "got 1")],
)
def test_a_static_plan_must_fit(folder, bundle, change, message):
    """A bundle whose own plan could not be gone by is refused as such."""
    plan = bundle.manifest.static_plan.model_dump(mode="json")
    rewrite(folder, static_plan={**plan, **change})
    with pytest.raises(BundleError, match=f"does not hold together: .*{message}"):
        Bundle.load(folder)


def test_weights_of_another_network_are_refused(folder, bundle):
    """The weights must be all of the network's, and no others."""
    weights = {name: value.numpy() for name, value in bundle.network.state_dict().items()}
    for changed in (
        {**weights, "extra": np.zeros(1)},
        {name: value for name, value in weights.items() if name != "mean"},
        {**weights, "mean": np.zeros(2)},
    ):
        (folder / WEIGHTS).write_bytes(save_arrays(changed))
        seal(folder)
        with pytest.raises(BundleError, match="does not hold together"):
            Bundle.load(folder)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", bytes(64)])
@pytest.mark.parametrize("name", [WEIGHTS, OUTCOMES])
def test_tensors_that_are_none_are_refused(folder, name, content):
    """Files that are not safetensors are refused, though their hash is right."""
    (folder / name).write_bytes(content)
    seal(folder)
    with pytest.raises(BundleError, match="does not hold together"):
        Bundle.load(folder)


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
    """CIFAR-10 comes with the package: twelve blocks, ten labels, a plan that fits, and small."""
    monkeypatch.chdir(tmp_path)
    folder, loaded = find(None), Bundle.load()
    manifest = loaded.manifest
    assert (manifest.name, loaded.network.num_blocks) == ("cifar10", 12)
    assert len(set(manifest.labels)) == loaded.network.num_classes == 10
    manifest.static_plan.check(12, len(LADDER))
    assert manifest.static_plan.version == 0
    assert loaded.outcomes.entropy.shape[1] == 12
    assert sorted(manifest.macs) == list(manifest.macs)
    assert sum((folder / name).stat().st_size for name in FILES) < MAX_DEFAULT_BYTES
    assert {file.name for file in folder.iterdir()} == set(FILES)


def test_the_default_bundle_serves(monkeypatch, tmp_path):
    """Its network, made ready to serve, gives every exit's finite logits."""
    monkeypatch.chdir(tmp_path)
    network = Bundle.load().network.prepare()
    exits = network(torch.zeros(1, 3, *network.image_size, dtype=torch.uint8))
    assert len(exits) == 12
    assert all(exit_.isfinite().all() for exit_ in exits)
