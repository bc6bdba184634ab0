import json

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from deployments.profile_command import EXAMPLES, profile
from xpi_ray.bundle import Bundle
from xpi_ray.errors import TierLostError
from xpi_ray.profiles.energy import compute_j
from xpi_ray.profiles.table import Profile


@pytest.fixture
def xpi_profile():
    """Run `xpi profile`, and give this process its number of threads back."""
    app = typer.Typer()
    app.command()(profile)
    threads = torch.get_num_threads()
    yield lambda *args: CliRunner().invoke(app, [*map(str, args), "--repeats", "2"])
    torch.set_num_threads(threads)


def test_every_block_has_a_row(xpi_profile, bundle, bundle_folder):
    """`--json` tells times, cost, share, energy and accuracy of each block, by profile."""
    result = xpi_profile(bundle_folder, "--json")
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout).values()
    rows = found["blocks"]
    assert [row["block"] for row in rows] == [1, 2, 3, 4]
    assert [row["cumulative_macs"] for row in rows] == list(bundle.manifest.macs)
    assert [row["exit_accuracy"] for row in rows] == pytest.approx(bundle.outcomes.accuracy())
    times = [row["ms"] for row in rows]
    assert min(times) > 0
    assert [row["cumulative_ms"] for row in rows] == pytest.approx(np.cumsum(times), abs=1e-3)
    assert sum(row["share_of_time"] for row in rows) == pytest.approx(1, abs=1e-3)
    assert found["batch_sizes"] == list(Profile.BATCH_SIZES)
    for row in rows:
        assert len(row["batch_ms"]) == len(row["batch_p95_ms"]) == len(found["batch_sizes"])
    level = bundle.manifest.static_plan.level
    sizes = [*bundle.outcomes.frame_bytes[level, 1:], 0]
    assert [row["frame_bytes"] for row in rows] == pytest.approx(sizes)
    energy_mj = [row["cumulative_edge_mj"] for row in rows]
    assert energy_mj == sorted(energy_mj)
    assert found["threads"] == 1


def test_people_get_a_table(xpi_profile, bundle_folder):
    """Without `--json` there is a table with a row for each block and the codec's times."""
    output = xpi_profile(bundle_folder, "--threads", 2).stdout
    title = " ".join(output.partition("┏")[0].split())
    assert title.startswith("noise, default: ")
    assert title.endswith(", 2 thread(s)")
    assert all(f"│ {block} " in output for block in range(1, 5))
    assert "to encode" in output


def test_the_copy_goes_by_this_machine(xpi_profile, bundle_folder, tmp_path):
    """`--output` writes the same bundle, save that its default profile is the one measured."""
    before = Bundle.load(bundle_folder)
    result = xpi_profile(bundle_folder, "--output", tmp_path / "here", "--json")
    after = Bundle.load(tmp_path / "here")
    measured = after.manifest.profiles["default"]
    told = json.loads(result.stdout)["default"]
    assert [row["ms"] for row in told["blocks"]] == list(measured.block_ms)
    assert told["blocks"][-1]["cumulative_edge_mj"] == round(compute_j(measured, 4) * 1000, 4)
    assert after.manifest == before.manifest.model_copy(update={"profiles": {"default": measured}})
    for name, weights in before.network.state_dict().items():
        assert torch.equal(after.network.state_dict()[name], weights)
    for name, array in before.outcomes.to_arrays().items():
        assert np.array_equal(after.outcomes.to_arrays()[name], array)


def test_an_edge_that_acts_weaker_has_a_profile_of_its_own(xpi_profile, bundle_folder, tmp_path):
    """`--slowdown` adds one for edges, this machine's times its factor, which it tells."""
    result = xpi_profile(bundle_folder, "--slowdown", 4, "--output", tmp_path / "emulated")
    assert "4 times weaker" in " ".join(result.stdout.split())
    profiles = Bundle.load(tmp_path / "emulated").manifest.profiles
    assert set(profiles) == {"default", "edge"}
    assert profiles["edge"].machine == f"{profiles['default'].machine}, as if 4 times weaker"
    assert profiles["edge"] == profiles["default"].slowed(4)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere", "localhost:port"]
)
def test_where_no_cluster_is_it_says_so(xpi_profile, bundle_folder, tmp_path, address):
    """An address that nobody listens at, or that is none, is named; no bundle is written."""
    result = xpi_profile(bundle_folder, "--address", address, "--output", tmp_path / "new")
    assert isinstance(result.exception, TierLostError)
    assert f"no Ray cluster to join at {address}" in str(result.exception)
    assert "HOST:PORT" in str(result.exception)
    assert not (tmp_path / "new").exists()


def test_nothing_is_written_unasked(xpi_profile, bundle_folder):
    """Measuring leaves the bundle as it is."""
    files = {file.name: file.read_bytes() for file in bundle_folder.iterdir()}
    assert xpi_profile(bundle_folder).exit_code == 0
    assert {file.name: file.read_bytes() for file in bundle_folder.iterdir()} == files


def test_examples_are_commands_that_parse(xpi_profile):
    """Each example's options are the command's own."""
    known = xpi_profile("--help").stdout
    lines = [line.split() for line in EXAMPLES.splitlines() if "xpi profile" in line]
    options = {word for line in lines for word in line if word.startswith("--")}
    assert options
    assert all(option in known for option in options)
