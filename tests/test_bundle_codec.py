"""Bundles whose codec is another system's."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from xpi_ray.bundle import CODECS, FORMAT_VERSION, LADDER_VERSION, MANIFEST, Bundle, Manifest
from xpi_ray.bundle_command import bundle as command
from xpi_ray.compression.builder import fit_codec
from xpi_ray.compression.deepcod import DeepCod
from xpi_ray.errors import BundleError
from xpi_ray.training.packing import carries

OTHERS = ("float32", "shuffled_lz4", "deepcod")


@pytest.fixture(scope="module")
def known(network, images):
    """Carries of the small network by partition."""
    return carries(network, images)


@pytest.fixture(scope="module")
def make(bundle, known):
    """Makes the small bundle with another codec; DeepCOD's is for partition 2."""
    torch.manual_seed(0)
    deepcods = {2: DeepCod(known[2].shape[1], 3)}

    def make(name, partition=2):
        told = bundle.manifest.model_dump(exclude={"codec", "format_version"})
        plan = bundle.manifest.static_plan.model_copy(update={"level": 0, "partition": partition})
        manifest = Manifest(**{**told, "static_plan": plan}, codec=name)
        codec = fit_codec(name, known, deepcods=deepcods)
        return dataclasses.replace(bundle, manifest=manifest, ladder=codec)

    return make


@pytest.mark.parametrize("name", OTHERS)
def test_a_codec_is_loaded_as_it_was_saved(make, known, tmp_path, name):
    """By the manifest's name; it sends the same, and saved again it is the same bundle."""
    made = make(name)
    made.save(tmp_path / "first")
    loaded = Bundle.load(tmp_path / "first")
    assert loaded.manifest == made.manifest
    assert (loaded.manifest.codec, loaded.ladder.levels) == (name, 1)
    carry = known[2][0]
    sent = made.ladder.encode(carry, 2, 0)
    assert loaded.ladder.encode(carry, 2, 0) == sent
    np.testing.assert_array_equal(loaded.ladder.decode(sent, 2, 0), made.ladder.decode(sent, 2, 0))
    loaded.save(tmp_path / "second")
    assert Bundle.load(tmp_path / "second").digest == loaded.digest


@pytest.mark.parametrize("name", OTHERS)
def test_older_software_is_told_to_upgrade(make, tmp_path, name):
    """Its format is one that the software before it refuses by number, the first thing it reads."""
    make(name).save(tmp_path)
    written = json.loads((tmp_path / MANIFEST).read_text())
    assert (written["codec"], written["format_version"]) == (name, FORMAT_VERSION)
    assert FORMAT_VERSION > LADDER_VERSION


def test_a_ladders_manifest_is_that_of_older_software(bundle_folder):
    """It has the older format and no word of a codec, and is loaded with the ladder."""
    written = json.loads((bundle_folder / MANIFEST).read_text())
    assert "codec" not in written
    assert written["format_version"] == LADDER_VERSION
    assert Bundle.load(bundle_folder).manifest.codec == "ladder"


@pytest.mark.parametrize("name", OTHERS)
def test_people_are_told_the_codec(make, tmp_path, monkeypatch, name):
    """`show` names it, and how many levels it has."""
    make(name).save(tmp_path)
    told = json.loads(CliRunner().invoke(command, ["show", str(tmp_path), "--json"]).stdout)
    assert (told["codec"], told["levels"]) == (name, 1)
    monkeypatch.setenv("COLUMNS", "200")
    lines = CliRunner().invoke(command, ["show", str(tmp_path)]).stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("codec")]
    assert f"{name}, levels: 1" in line


def test_a_ladder_is_told_too(bundle_folder):
    """With its levels."""
    told = json.loads(CliRunner().invoke(command, ["show", str(bundle_folder), "--json"]).stdout)
    assert (told["codec"], told["levels"]) == ("ladder", 7)


def test_an_unknown_codec_is_refused(make, tmp_path):
    """By the names that there are."""
    with pytest.raises(ValueError, match=r"codec\n.*'ladder', 'float32'"):
        Manifest(**{**make("float32").manifest.model_dump(), "codec": "jpeg"})


def test_a_plan_must_send_where_the_codec_can(make, tmp_path):
    """DeepCOD's bundle cannot go by a plan of another partition; the image or nothing may cross."""
    make("deepcod", partition=3).save(tmp_path)
    with pytest.raises(BundleError, match="the codec sends no carry after block 3"):
        Bundle.load(tmp_path)
    for partition in (0, 4):
        make("deepcod", partition).save(tmp_path)
        assert Bundle.load(tmp_path).manifest.static_plan.partition == partition


def test_codecs_of_another_name_are_refused(make, bundle, tmp_path):
    """A manifest that names one codec above the arrays of another does not hold together."""
    dataclasses.replace(make("float32"), ladder=bundle.ladder).save(tmp_path)
    with pytest.raises(BundleError, match=r"does not hold together: .*'float32'"):
        Bundle.load(tmp_path)
    assert (tmp_path / CODECS).stat().st_size > 1_000
