import json

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from xpi_ray.bundle import Bundle
from xpi_ray.profile_command import EXAMPLES, profile


@pytest.fixture
def xpi_profile():
    """Run `xpi profile`, and give this process its number of threads back."""
    app = typer.Typer()
    app.command()(profile)
    threads = torch.get_num_threads()
    yield lambda *args: CliRunner().invoke(app, [*map(str, args), "--repeats", "2"])
    torch.set_num_threads(threads)


def test_every_block_has_a_row(xpi_profile, bundle, bundle_folder):
    """`--json` tells the time, cost, share and accuracy of each block, and on how many threads."""
    result = xpi_profile(bundle_folder, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    rows = found["blocks"]
    assert [row["block"] for row in rows] == [1, 2, 3, 4]
    assert [row["cumulative_macs"] for row in rows] == list(bundle.manifest.macs)
    assert [row["exit_accuracy"] for row in rows] == pytest.approx(bundle.outcomes.accuracy())
    times = [row["ms"] for row in rows]
    assert min(times) > 0
    assert [row["cumulative_ms"] for row in rows] == pytest.approx(np.cumsum(times), abs=1e-3)
    assert sum(row["share_of_time"] for row in rows) == pytest.approx(1, abs=1e-3)
    assert found["threads"] == 1


def test_people_get_a_table(xpi_profile, bundle_folder):
    """Without `--json` there is a table with a row for each block and the codec's times."""
    output = xpi_profile(bundle_folder, "--threads", 2).stdout
    assert "noise on" in output
    assert "2 thread(s)" in output
    assert all(f"│ {block} " in output for block in range(1, 5))
    assert "to encode" in output


def test_the_copy_goes_by_this_machine(xpi_profile, bundle_folder, tmp_path):
    """`--output` writes the same bundle, save that its default profile is the one measured."""
    before = Bundle.load(bundle_folder)
    result = xpi_profile(bundle_folder, "--output", tmp_path / "here", "--json")
    after = Bundle.load(tmp_path / "here")
    measured = after.manifest.profiles["default"]
    assert [row["ms"] for row in json.loads(result.stdout)["blocks"]] == list(measured.block_ms)
    assert after.manifest == before.manifest.model_copy(update={"profiles": {"default": measured}})
    for name, weights in before.network.state_dict().items():
        assert torch.equal(after.network.state_dict()[name], weights)
    for name, array in before.outcomes.to_arrays().items():
        assert np.array_equal(after.outcomes.to_arrays()[name], array)


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
