import dataclasses
import json

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from xpi_ray.bundle import Bundle
from xpi_ray.errors import BundleError, RequestError, UnsupportedMediaError
from xpi_ray.exits.confidence import normalised_entropy
from xpi_ray.exits.rule import first_sure_exit
from xpi_ray.explain_command import EXAMPLES, explain
from xpi_ray.networks.slowed import SlowedNetwork


@pytest.fixture
def photo(images, tmp_path):
    """An image of the network's size, as a file."""
    path = tmp_path / "photo.png"
    Image.fromarray(images[0].permute(1, 2, 0).numpy()).save(path)
    return path


@pytest.fixture
def xpi_explain(bundle_folder, tmp_path, monkeypatch):
    """Run `xpi explain` on the small bundle, in an empty folder."""
    app = typer.Typer()
    app.command()(explain)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    few = ["--bundle", str(bundle_folder), "--steps", "2"]
    return lambda *args: CliRunner().invoke(app, [*map(str, args), *few])


def test_the_facts_are_the_networks(xpi_explain, photo, images, bundle):
    """`--json` tells what each exit answers and where the image leaves."""
    result = xpi_explain(photo, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    labels, thresholds = bundle.manifest.labels, bundle.manifest.calibrations[0].thresholds
    logits = np.stack([exit_.numpy()[0] for exit_ in bundle.network(images[:1])])
    entropy = normalised_entropy(logits)
    assert [row["exit"] for row in told["exits"]] == [1, 2, 3, 4]
    assert [row["label"] for row in told["exits"]] == [labels[i] for i in logits.argmax(1)]
    assert [row["entropy"] for row in told["exits"]] == pytest.approx(entropy, abs=1e-5)
    assert [row["threshold"] for row in told["exits"]] == list(thresholds)
    (leaves_at,) = first_sure_exit(entropy[None], np.array(thresholds))
    assert told["leaves_at"] == leaves_at
    assert told["answer"] == told["exits"][leaves_at - 1]["label"]
    assert all(0 <= row["branch_share"] <= 1.0001 for row in told["exits"])


def test_the_picture_lies_where_it_is_asked_for(xpi_explain, photo, tmp_path):
    """It is named after the image, in the folder where one stands, or as `--output` says."""
    assert xpi_explain(photo).exit_code == 0
    assert xpi_explain(photo, "--output", tmp_path / "seen.png").exit_code == 0
    for path in (tmp_path / "here" / "photo-explained.png", tmp_path / "seen.png"):
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 300


def test_people_get_a_table(xpi_explain, photo):
    """Without `--json` there is a row for each exit, one mark, and the picture's place."""
    output = xpi_explain(photo).stdout
    assert all(f"│ {number} " in output for number in range(1, 5))
    assert output.count(" here ") == 1
    assert "4 of 10" in output
    assert "photo-explained.png" in output


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (None, RequestError, "cannot read"),
        (b"", RequestError, "empty"),
        (b"no image", RequestError, "8 bytes"),
        (b"GIF89a", UnsupportedMediaError, "GIF"),
    ],
)
def test_what_is_no_image_is_refused(xpi_explain, tmp_path, content, error, said):
    """The error names the file and says what is wrong with it, and there is no picture."""
    path = tmp_path / "odd.jpg"
    if content is not None:
        path.write_bytes(content)
    raised = xpi_explain(path).exception
    assert type(raised) is error
    assert str(path) in str(raised)
    assert said in str(raised)
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize("name", ["seen.jpg", "seen", "nowhere/seen.png"])
def test_a_picture_that_cannot_be_is_refused(xpi_explain, photo, name):
    """A name that is no PNG's, or a folder that is not there, is an error of one line."""
    raised = xpi_explain(photo, "--output", name).exception
    assert type(raised) is RequestError
    assert name in str(raised)


def test_only_xpi_networks_can_be_looked_into(xpi_explain, photo, bundle, monkeypatch):
    """A network without channels of its branch's own is refused."""
    other = dataclasses.replace(bundle, network=SlowedNetwork(bundle.network, 1))
    monkeypatch.setattr(Bundle, "load", lambda path: other)
    raised = xpi_explain(photo).exception
    assert type(raised) is BundleError
    assert "Xpi networks" in str(raised)


def test_examples_are_commands_that_parse(xpi_explain):
    """Each example's options are the command's own."""
    known = xpi_explain("--help").stdout
    options = {word for word in EXAMPLES.split() if word.startswith("--")}
    assert options
    assert all(option in known for option in options)
