import copy
import dataclasses
import hashlib
import json
import shutil
import subprocess

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as save_arrays
from safetensors.torch import save as save_tensors

from xpi_ray import bundle as module
from xpi_ray.bundle import (
    CENTRES,
    CODECS,
    DIGEST_BYTES,
    ELASTIC,
    MANIFEST,
    OUTCOMES,
    SUMS,
    WEIGHTS,
    Bundle,
)
from xpi_ray.errors import BundleError
from xpi_ray.networks.architectures import xpi12
from xpi_ray.networks.xpi import XpiNetwork

FILES = (MANIFEST, WEIGHTS, CODECS, OUTCOMES, SUMS, ELASTIC)
MAX_DEFAULT_BYTES = 10 << 20


@pytest.fixture
def folder(bundle_folder, tmp_path):
    """A copy of the small bundle, to be spoilt."""
    return shutil.copytree(bundle_folder, tmp_path / "copy")


@pytest.fixture
def learned():
    """Centres of one carry, as a training leaves them."""
    return {
        "block1_centres4": torch.tensor([-0.25, 0.0, 0.1, 7.0]),
        "block1_centres2": torch.ones(2),
    }


@pytest.fixture
def quantised_folder(bundle, learned, tmp_path):
    """The small bundle with centres, to be spoilt."""
    dataclasses.replace(bundle, centres=learned).save(tmp_path / "quantised")
    return tmp_path / "quantised"


def seal(folder):
    """Make the hashes right again, as one who forges a bundle would."""
    names = [
        name
        for name in (CENTRES, CODECS, ELASTIC, MANIFEST, OUTCOMES, WEIGHTS)
        if (folder / name).exists()
    ]
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


def test_rounded_weights_take_half_the_room(bundle, tmp_path):
    """Of weights that 16 bits hold the file is half as large, and none of them changes."""
    torch.manual_seed(0)
    network = XpiNetwork(xpi12(10, (32, 32), (0.5,) * 3, (0.2,) * 3))
    sizes = []
    for each in (network, copy.deepcopy(network).half().float()):
        dataclasses.replace(bundle, network=each).save(tmp_path)
        sizes.append((tmp_path / WEIGHTS).stat().st_size)
    assert sizes[1] / sizes[0] == pytest.approx(0.5, abs=0.02)


def test_weights_that_need_32_bits_are_stored_as_they_are(bundle, tmp_path):
    """Where no tensor fits into 16 bits the file holds the very weights."""
    network = copy.deepcopy(bundle.network)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.add_(0.003141592)
    dataclasses.replace(bundle, network=network).save(tmp_path)
    assert (tmp_path / WEIGHTS).read_bytes() == save_tensors(network.state_dict())


@settings(
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    values=npst.arrays(np.float32, 5, elements=st.one_of(st.floats(width=16), st.floats(width=32)))
)
def test_no_weight_changes_by_being_stored(bundle, tmp_path, values):
    """To the last bit: zeros of either sign, the smallest and largest, infinite ones and none."""
    network = copy.deepcopy(bundle.network)
    network.block(1).branch.classifier.bias.copy_(torch.from_numpy(values))
    dataclasses.replace(bundle, network=network).save(tmp_path)
    loaded = Bundle.load(tmp_path).network.block(1).branch.classifier.bias
    assert loaded.dtype == torch.float32
    assert loaded.detach().numpy().tobytes() == values.tobytes()


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed here")
def test_the_sums_are_those_of_the_tool(bundle_folder):
    """`sha256sum -c SHA256SUMS` checks the three files and finds them whole."""
    ran = subprocess.run(
        ["sha256sum", "-c", SUMS], cwd=bundle_folder, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines() == [
        f"{name}: OK" for name in (CODECS, ELASTIC, MANIFEST, OUTCOMES, WEIGHTS)
    ]


@pytest.mark.parametrize("name", [*FILES, CENTRES])
def test_a_missing_file_is_named(quantised_folder, name):
    """Without any one of its files a bundle is refused by that file's name."""
    (quantised_folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name} cannot be read .*; get the bundle anew"):
        Bundle.load(quantised_folder)


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS, CODECS, OUTCOMES, CENTRES, ELASTIC])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_file_is_named(quantised_folder, name, damage):
    """One flipped byte or a missing end is noticed before the file is read."""
    content = bytearray((quantised_folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {"flip": content, "cut": content[:-1], "empty": b""}[damage]
    (quantised_folder / name).write_bytes(damaged)
    with pytest.raises(BundleError, match=f"{name} is damaged: expected sha256 .* found"):
        Bundle.load(quantised_folder)


@pytest.mark.parametrize("kind", ["folder", "quantised_folder"])
def test_no_byte_of_the_sums_can_change(request, kind):
    """A flipped byte of a hash, or of a name, is noticed."""
    folder = request.getfixturevalue(kind)
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


def test_centres_are_loaded_as_they_were_learnt(bundle, bundle_folder, learned, quantised_folder):
    """To the last bit, by their names; a bundle without any has no file of them."""
    found = Bundle.load(quantised_folder).centres
    assert found.keys() == learned.keys()
    for name, values in learned.items():
        assert found[name].dtype == values.dtype
        assert torch.equal(found[name], values)
    assert bundle.centres == Bundle.load(bundle_folder).centres == {}
    assert {file.name for file in bundle_folder.iterdir()} == set(FILES)


def test_centres_do_not_outlive_their_bundle(bundle, quantised_folder, bundle_folder):
    """Saved over one with centres, a bundle without them is what it is elsewhere."""
    bundle.save(quantised_folder)
    assert {file.name for file in quantised_folder.iterdir()} == set(FILES)
    assert Bundle.load(quantised_folder).centres == {}
    assert Bundle.load(quantised_folder).digest == Bundle.load(bundle_folder).digest


def test_centres_belong_to_the_identity(bundle, learned, quantised_folder, bundle_folder):
    """A bundle with them, and one with others, is another bundle; saved again it is the same."""
    loaded = Bundle.load(quantised_folder)
    digests = {loaded.digest, Bundle.load(bundle_folder).digest}
    loaded.save(quantised_folder)
    assert Bundle.load(quantised_folder).digest == loaded.digest
    moved = {name: values + 1 for name, values in learned.items()}
    dataclasses.replace(bundle, centres=moved).save(quantised_folder)
    assert len({*digests, Bundle.load(quantised_folder).digest}) == 3


def test_centres_that_are_not_listed_are_not_read(folder):
    """A file that has no hash is no part of the bundle, whatever is in it."""
    (folder / CENTRES).write_bytes(b"from elsewhere")
    assert Bundle.load(folder).centres == {}


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("block9_centres2", torch.zeros(2), "belong to no carry"),
        ("block0_centres2", torch.zeros(2), "belong to no carry"),
        ("centres2", torch.zeros(2), "belong to no carry"),
        ("block1_centres17", torch.zeros(17), "2 to 16 finite"),
        ("block1_centres1", torch.zeros(1), "2 to 16 finite"),
        ("block1_centres4", torch.zeros(3), "2 to 16 finite"),
        ("block1_centres2", torch.zeros(2, 1), "2 to 16 finite"),
        ("block1_centres2", torch.zeros(2, dtype=torch.float64), "2 to 16 finite"),
        ("block1_centres2", torch.tensor([0.0, torch.inf]), "2 to 16 finite"),
        ("block1_centres2", torch.tensor([1.0, 0.0]), "must ascend"),
    ],
)
def test_centres_that_quantise_no_carry_are_refused(bundle, tmp_path, name, values, message):
    """Of a block without a carry, of another size or type, not finite, or out of order."""
    dataclasses.replace(bundle, centres={name: values}).save(tmp_path)
    with pytest.raises(BundleError, match=message):
        Bundle.load(tmp_path)


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


@pytest.mark.parametrize("version", [4, "1", None])
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


def test_a_profile_is_found_by_the_first_name_that_there_is(bundle):
    """A node's own profile comes before that of its kind, and the default one is for all others."""
    default = bundle.manifest.profiles["default"]
    profiles = {"default": default, "edge": default.slowed(2), "edge:a": default.slowed(3)}
    manifest = bundle.manifest.model_copy(update={"profiles": profiles})
    assert manifest.profile_of("edge:a", "edge") is profiles["edge:a"]
    assert manifest.profile_of("edge:b", "edge") is profiles["edge"]
    assert manifest.profile_of("cloud") is manifest.profile_of() is default


def test_old_manifests_without_batches_are_read(bundle, folder):
    """Profiles of bundles that were made before batches were measured count images one by one."""
    manifest = bundle.manifest.model_dump(mode="json")
    old = {**manifest["profiles"]["default"]}
    for name in ("batch_ms", "batch_p95_ms", "slowdown"):
        del old[name]
    rewrite(folder, profiles={"default": old})
    profile = Bundle.load(folder).manifest.profile_of("cloud")
    assert profile.block_ms == bundle.manifest.profiles["default"].block_ms
    assert profile.batched_ms(1, 7) == pytest.approx(7 * profile.block_ms[0])


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
    [({"partition": 5}, "partition 5"), ({"level": 7}, "level 7"), ({"thresholds": [1]}, "got 1")],
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
@pytest.mark.parametrize("name", [WEIGHTS, CODECS, OUTCOMES, CENTRES, ELASTIC])
def test_tensors_that_are_none_are_refused(folder, name, content):
    """Files that are not safetensors are refused, though their hash is right."""
    (folder / name).write_bytes(content)
    seal(folder)
    with pytest.raises(BundleError, match="does not hold together"):
        Bundle.load(folder)
