import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from xpi_ray.bundle import (
    CODECS,
    MANIFEST,
    OUTCOMES,
    SUMS,
    WEIGHTS,
    Bundle,
    Calibration,
    Manifest,
    NetworkEntry,
    Preprocessing,
)
from xpi_ray.bundle_command import bundle
from xpi_ray.compression.ladder import Ladder
from xpi_ray.errors import BundleError
from xpi_ray.networks.architectures import xpi12
from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.policies.plan import Plan
from xpi_ray.profiles.outcomes import Outcomes
from xpi_ray.profiles.table import Profile
from xpi_ray.training.packing import carries

LABELS = ("cat", "dog", "owl")
N = 12


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Save a bundle of random weights, whose exit i is right on i of 12 samples."""
    torch.manual_seed(0)
    spec = xpi12(len(LABELS), (16, 16), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    correct = np.arange(N)[:, None] <= np.arange(N)[None, :]
    resumed = np.zeros((2, N, 1, N))
    thresholds = (0.1,) * N
    manifest = Manifest(
        name="pets",
        version="1",
        description="Three pets",
        network=NetworkEntry(kind="xpi", spec=spec.model_dump(mode="json")),
        labels=LABELS,
        preprocessing=Preprocessing(size=(16, 16)),
        macs=tuple(range(1000, 13_000, 1000)),
        profiles={
            "default": Profile(
                machine="a toaster", threads=1, block_ms=(0.5,) * N, encode_ms=0.1, decode_ms=0.2
            )
        },
        calibrations=(
            Calibration(tolerance=0.01, thresholds=thresholds, accuracy=0.9, mean_macs=5e3),
        ),
        static_plan=Plan(version=0, partition=6, thresholds=thresholds, level=1),
    )
    outcomes = Outcomes(
        np.zeros((N, N), np.float32),
        correct,
        resumed.astype(np.float32),
        resumed.astype(np.bool_),
        np.ones((2, N), np.float32),
    )
    folder = tmp_path_factory.mktemp("pets")
    network = XpiNetwork(spec).eval()
    images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    ladder = Ladder.fit(carries(network, images))
    Bundle(manifest, network, ladder, outcomes).save(folder)
    return folder


def run(*args):
    """Run `xpi bundle` with arguments."""
    return CliRunner().invoke(bundle, [str(arg) for arg in args])


def test_the_facts_are_the_bundles(sound):
    """`show --json` tells name, labels, accuracy and cost of each exit, plan and file sizes."""
    told = json.loads(run("show", sound, "--json").stdout)
    assert (told["name"], tuple(told["labels"])) == ("pets", LABELS)
    assert told["network"]["blocks"] == N
    assert [row["accuracy"] for row in told["exits"]] == pytest.approx(np.arange(1, N + 1) / N)
    assert [row["cumulative_macs"] for row in told["exits"]] == list(range(1000, 13_000, 1000))
    assert told["static_plan"]["partition"] == 6
    assert told["profiles"]["default"]["machine"] == "a toaster"
    assert told["digest"] == Bundle.load(sound).digest.hex()
    sizes = {path.name: path.stat().st_size for path in sound.iterdir()}
    assert told["files_bytes"] == sizes


def test_the_tables_say_it_to_people(sound, monkeypatch):
    """`show` prints the last exit with its accuracy and time, and the plan."""
    monkeypatch.setenv("COLUMNS", "200")
    lines = run("show", sound).stdout.splitlines()
    (last,) = [line for line in lines if line.startswith("│ 12 ")]
    assert all(part in last for part in ("100.00%", "12,000", "6.00"))
    assert any("partition 6, level 1" in line for line in lines)
    assert any("cat, dog, owl" in line for line in lines)


def test_a_sound_bundle_is_whole(sound):
    """`verify` says so, with the digest that all nodes must share."""
    result = run("verify", sound)
    assert result.exit_code == 0
    assert f"pets 1 is whole (5 files, digest {Bundle.load(sound).digest.hex()})" in result.stdout


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS, CODECS, OUTCOMES, SUMS])
def test_a_flipped_bit_is_found(sound, tmp_path, name):
    """One changed bit in any file is a BundleError that names the file."""
    for path in sound.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / name).write_bytes(data)
    result = run("verify", tmp_path)
    assert isinstance(result.exception, BundleError)
    assert (name if name != SUMS else str(tmp_path)) in str(result.exception)


def test_a_folder_without_a_bundle_is_refused(tmp_path):
    """Both verbs say that there is none."""
    for verb in ("show", "verify"):
        error = run(verb, tmp_path).exception
        assert isinstance(error, BundleError)
        assert str(tmp_path) in str(error)
