import json

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from xpi_ray.bundle import WEIGHTS, Bundle
from xpi_ray.errors import DataError, TrainingError
from xpi_ray.networks.msdnet import MsdNetwork
from xpi_ray.networks.plain import PlainNetwork
from xpi_ray.networks.resnet import CifarResNet
from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.networks.zoo import ZOO
from xpi_ray.training import command, packing
from xpi_ray.training.command import train
from xpi_ray.training.networks import ARCHITECTURES, colour_statistics
from xpi_ray.training.quantization import CarryQuantization
from xpi_ray.training.recipes import RECIPES
from xpi_ray.training.stages import CENTRE_IMAGES
from xpi_ray.training.trainer import CHECKPOINT, exit_accuracies, read_weights

PLAIN = ("--training", "plain_joint", "--epochs", "1")
QUANTIZED = ("--training", "distilled_quantized", "--epochs", "1", "--json")


@pytest.fixture
def xpi_train(monkeypatch, separable, tmp_path):
    """Run `xpi train` on the tiny data set, in a folder of the test's own."""
    monkeypatch.setattr(command, "load", lambda name: separable._replace(name=name))
    monkeypatch.setattr(packing, "RESUMED", 10)
    monkeypatch.setattr(packing, "LADDER_IMAGES", 40)
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(train)

    def run(*args, output="run"):
        where = ["--output", str(tmp_path / output)] if output else []
        return CliRunner().invoke(app, ["tiny", *where, "--batch-size", "80", *args])

    return run


@pytest.fixture
def tiny_networks(monkeypatch, spec):
    """All architectures are the small network, but for what trains them."""
    for name, kind in ARCHITECTURES.items():
        tiny = kind._replace(build=lambda splits: XpiNetwork(spec))
        monkeypatch.setitem(ARCHITECTURES, name, tiny)


def test_a_run_ends_in_a_bundle(xpi_train, tmp_path):
    """The folder holds settings, log, checkpoint and a bundle that loads; a row for each exit."""
    result = xpi_train(*PLAIN, "--version", "3")
    assert result.exit_code == 0, result.output
    assert "tiny, plain_joint, 1 epochs" in result.stdout
    assert result.stdout.count("%") == 12
    folder = tmp_path / "run"
    files = {"bundle", "config.json", "log.csv", "checkpoint.pt"}
    assert {file.name for file in folder.iterdir()} == files
    bundle = Bundle.load(folder / "bundle")
    assert (bundle.manifest.name, bundle.manifest.version) == ("tiny", "3")
    assert bundle.network.num_blocks == 12
    trained = torch.load(folder / "checkpoint.pt", weights_only=True)["network"]
    for name, weights in bundle.network.state_dict().items():
        assert torch.equal(weights, trained[name])


@pytest.mark.usefixtures("tiny_networks")
def test_json_goes_to_stdout_alone(xpi_train, tmp_path):
    """`--json` prints one document, and `--resume` tells a finished run's accuracy again."""
    first = xpi_train(*PLAIN, "--json")
    document = json.loads(first.stdout)
    assert document["bundle"] == str(tmp_path / "run" / "bundle")
    assert len(document["validation_accuracy"]) == 4
    assert xpi_train(*PLAIN, "--json", "--resume").stdout == first.stdout
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 2


@pytest.mark.usefixtures("tiny_networks")
def test_a_run_may_start_from_anothers_weights(xpi_train, tmp_path):
    """With next to no learning rate, `--start-from` ends with the weights of the other run."""
    assert xpi_train(*PLAIN).exit_code == 0
    first, second = tmp_path / "run", tmp_path / "second"
    result = xpi_train(
        *PLAIN, "--seed", "9", "--peak-learning-rate", "1e-9",
        "--start-from", str(first), "--output", str(second),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    before, after = read_weights(first), read_weights(second)
    for name in (name for name in before if name.endswith("weight")):
        assert torch.allclose(after[name], before[name], atol=1e-6), name


def test_a_start_from_nowhere_is_refused(xpi_train, tmp_path):
    """A folder that is no run's is named."""
    result = xpi_train("--start-from", str(tmp_path))
    assert isinstance(result.exception, DataError)
    assert "expected the folder of a run" in str(result.exception)


@pytest.mark.usefixtures("tiny_networks")
@pytest.mark.parametrize(
    "options", [("--training", "distilled"), ("--architecture", "lite12"), ("--start-from", "run")]
)
def test_a_run_of_another_purpose_is_not_resumed(xpi_train, options):
    """Another training, network or start is refused, and the message tells the run's purpose."""
    assert xpi_train(*PLAIN).exit_code == 0
    result = xpi_train(*PLAIN, *options, "--resume")
    assert isinstance(result.exception, DataError)
    assert "'purpose': 'plain_joint of xpi12 on tiny from None" in str(result.exception)


def quick(name):
    """A recipe with reference networks that are hardly fitted."""
    chosen = RECIPES[name]
    manipulation = chosen.manipulation.model_copy(update={"reference_steps": 2})
    return chosen.model_copy(update={"manipulation": manipulation})


def assert_centres_are_those_of(saved, bundle):
    """Compare with a checkpoint's, of three carries and three counts, to the last bit."""
    assert len(bundle.centres) == 3 * 3
    for name, values in bundle.centres.items():
        trained = saved["objective"][f"quantization._centres.{name}.values"]
        assert torch.equal(values, trained.sort().values)


@pytest.mark.usefixtures("tiny_networks")
@pytest.mark.parametrize("training", ["distilled_quantized", "xai_quantized"])
def test_the_default_training_learns_centres(xpi_train, tmp_path, monkeypatch, training):
    """The bundle holds what carries were quantised with, as does that of the blocks in turn."""
    monkeypatch.setitem(RECIPES, "xai_quantized", quick("xai_quantized"))
    options = {"distilled_quantized": (), "xai_quantized": ("--training", "xai_quantized")}[
        training
    ]
    result = xpi_train("--epochs", "6", *options)
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["purpose"].startswith(f"{training} of xpi12 on tiny")
    bundle = Bundle.load(tmp_path / "run" / "bundle")
    saved = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert_centres_are_those_of(saved, bundle)


def test_half_the_bits_are_half_the_bundle(xpi_train, separable, tmp_path):
    """`--half` rounds the weights, and the accuracy that is told is that of the rounded ones."""
    sizes = []
    for options in ((), ("--half", "--resume")):
        result = xpi_train(*PLAIN, "--json", *options)
        assert result.exit_code == 0, result.output
        sizes.append((tmp_path / "run" / "bundle" / WEIGHTS).stat().st_size)
    assert sizes[1] / sizes[0] == pytest.approx(0.5, abs=0.05)
    network = Bundle.load(tmp_path / "run" / "bundle").network
    trained = read_weights(tmp_path / "run")
    for name, value in network.state_dict().items():
        assert torch.equal(value, trained[name].half().to(value.dtype)), name
    told = json.loads(result.stdout)["validation_accuracy"]
    assert told == exit_accuracies(network, separable.validation)


@pytest.mark.usefixtures("tiny_networks")
def test_a_fine_tune_has_a_folder_of_its_own(xpi_train, tmp_path):
    """It is logged there, for its own epochs."""
    result = xpi_train(*PLAIN, "--fine-tune-epochs", "2")
    assert result.exit_code == 0, result.output
    assert len((tmp_path / "run" / "fine-tune" / "log.csv").read_text().splitlines()) == 3
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 2


@pytest.mark.usefixtures("tiny_networks")
def test_a_fine_tune_of_an_older_run_is_not_taken_up(xpi_train, tmp_path):
    """A new run in the folder, stopped before its fine-tune and resumed, makes its own."""
    tuned, new = ("--fine-tune-epochs", "1"), ("--training", "plain_joint", "--epochs", "2")
    unbroken = ("--output", str(tmp_path / "unbroken"))
    again = (*new, "--restart")
    for options in ((*PLAIN, *tuned), again, (*new, *tuned, "--resume"), (*new, *tuned, *unbroken)):
        result = xpi_train(*options)
        assert result.exit_code == 0, result.output
    found = read_weights(tmp_path / "run" / "fine-tune")
    for name, expected in read_weights(tmp_path / "unbroken" / "fine-tune").items():
        assert torch.equal(found[name], expected), name


@pytest.mark.usefixtures("tiny_networks")
def test_a_teacher_is_read_and_heard(xpi_train, tmp_path, monkeypatch):
    """With one the same run ends with other weights; a file that is none is refused."""
    path = tmp_path / "teacher.npz"
    torch.manual_seed(0)
    np.savez(path, **{n: v.numpy() for n, v in CifarResNet(1, 5).state_dict().items()})
    weights = []
    for options in ((), ("--teacher", str(path))):
        result = xpi_train(*PLAIN, *options, "--restart")
        assert result.exit_code == 0, result.output
        weights.append(read_weights(tmp_path / "run")["blocks.0.extractor.conv.0.weight"])
    assert not torch.equal(*weights)
    result = xpi_train(*PLAIN, "--teacher", str(tmp_path / "nobody.npz"), output="other")
    assert isinstance(result.exception, DataError)
    np.savez(path, **{n: v.numpy() for n, v in CifarResNet(1, 9).state_dict().items()})
    result = xpi_train(*PLAIN, "--teacher", str(path), output="other")
    assert isinstance(result.exception, TrainingError)
    assert "tells 9 classes apart and the data set has 5" in str(result.exception)


@pytest.mark.parametrize(
    ("option", "value", "known"),
    [("--architecture", "xpi13", "xpi12, lite12"), ("--training", "xia", "plain_joint")],
)
def test_unknown_names_are_refused(xpi_train, option, value, known):
    """The message names what there is."""
    result = xpi_train(option, value)
    assert isinstance(result.exception, TrainingError)
    assert value in str(result.exception)
    assert known in str(result.exception)


@pytest.mark.usefixtures("tiny_networks")
@pytest.mark.parametrize(
    ("architecture", "training", "rate"),
    [("xpi12", "distilled_quantized", 0.2), ("lite12", "plain_joint", 0.6)],
)
def test_an_architecture_says_what_trains_it(xpi_train, tmp_path, architecture, training, rate):
    """Its recipe, its learning rate, and a folder named by all three; options come before."""
    own = ("--training", "distilled", "--peak-learning-rate", "0.3")
    for options, used in (((), (training, rate)), (own, ("distilled", 0.3))):
        result = xpi_train("--architecture", architecture, "--epochs", "6", *options, output=None)
        assert result.exit_code == 0, result.output
        folder = tmp_path / "runs" / f"tiny-{architecture}-{used[0]}"
        config = json.loads((folder / "config.json").read_text())
        assert config["purpose"].startswith(f"{used[0]} of {architecture} on tiny")
        assert config["peak_learning_rate"] == used[1]


@pytest.mark.usefixtures("tiny_networks")
def test_a_run_is_replaced_only_if_that_is_asked_for(xpi_train, tmp_path):
    """Else its checkpoint stays, and the message says what is there and what to do."""
    assert xpi_train(*PLAIN).exit_code == 0
    before = (tmp_path / "run" / CHECKPOINT).read_bytes()
    result = xpi_train(*PLAIN, "--seed", "1")
    assert isinstance(result.exception, TrainingError)
    for told in ("plain_joint of xpi12 on tiny", "epoch 1 of 1", "--resume", "--restart"):
        assert told in str(result.exception)
    result = xpi_train(*PLAIN, "--resume", "--restart")
    assert isinstance(result.exception, TrainingError)
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == before
    assert xpi_train(*PLAIN, "--seed", "1", "--restart").exit_code == 0
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() != before


@pytest.mark.usefixtures("tiny_networks")
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (("--version", "two words"), TrainingError, "version 'two words', but such as"),
        (("--version", "1" * 33), TrainingError, "should match pattern"),
        (("--average-with", "nowhere"), DataError, "expected the folder of a run"),
        (("--average-with", "other"), TrainingError, "holds another network than this one"),
        (("--reference", "compact"), TrainingError, "moves no importance"),
        (("--training", "xai", "--reference", "tiny"), TrainingError, "unknown reference network"),
        (("--training", "xai", "--reference", "nobody:made"), TrainingError, "cannot import"),
        (("--peak-learning-rate", "0"), TrainingError, "a learning rate above 0, got 0"),
    ],
)
def test_what_cannot_end_well_is_not_begun(xpi_train, tmp_path, spec, options, error, message):
    """It is refused before anything is trained or written."""
    (tmp_path / "other").mkdir()
    other = XpiNetwork(spec.model_copy(update={"num_classes": 6}))
    saved = {"network": other.state_dict(), "config": {}, "epoch": 1}
    torch.save(saved, tmp_path / "other" / CHECKPOINT)
    result = xpi_train(*PLAIN, *options)
    assert isinstance(result.exception, error)
    assert message in str(result.exception)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("tiny_networks")
def test_a_reference_network_is_part_of_a_runs_purpose(xpi_train, tmp_path, monkeypatch):
    """A run with one of the user's own is not resumed with another."""
    monkeypatch.setitem(RECIPES, "xai_joint", quick("xai_joint"))
    options = ("--training", "xai_joint", "--epochs", "1")
    result = xpi_train(*options, "--reference", "xpi_ray.networks.reference:CompactReference")
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["purpose"].endswith(", reference xpi_ray.networks.reference:CompactReference")
    assert isinstance(xpi_train(*options, "--resume").exception, DataError)


def judged(monkeypatch, name, verdict):
    """Have the network's accuracies before an improvement be such that it is kept, or undone."""
    improve = getattr(command, name)

    def run(*args):
        before = {"kept": [-1.0], "undone": [2.0]}[verdict]
        return improve(*(before if isinstance(arg, list) else arg for arg in args))

    monkeypatch.setattr(command, name, run)


@pytest.mark.usefixtures("tiny_networks")
@pytest.mark.parametrize("verdict", ["kept", "undone"])
def test_a_fine_tune_brings_its_centres(xpi_train, tmp_path, monkeypatch, verdict):
    """If it is kept, weights and centres are its own, else the training's; both are told."""
    judged(monkeypatch, "fine_tuned_if_better", verdict)
    result = xpi_train(*QUANTIZED, "--fine-tune-epochs", "2")
    assert result.exit_code == 0, result.output
    assert f"fine-tune {verdict}, judged by the mean" in result.stderr
    told = json.loads(result.stdout)
    assert (told["fine_tune"], told["average"]) == (verdict, None)
    folder = tmp_path / "run" / ("fine-tune" if verdict == "kept" else "")
    saved = torch.load(folder / CHECKPOINT, weights_only=True)
    bundle = Bundle.load(tmp_path / "run" / "bundle")
    for name, value in bundle.network.state_dict().items():
        assert torch.equal(value, saved["network"][name])
    assert_centres_are_those_of(saved, bundle)


@pytest.mark.usefixtures("tiny_networks")
@pytest.mark.parametrize("verdict", ["kept", "undone"])
def test_an_average_brings_its_centres(xpi_train, separable, tmp_path, monkeypatch, verdict):
    """If it is kept, they are spread over its carries, else the training's; both are told."""
    assert xpi_train(*QUANTIZED, "--seed", "1", output="other").exit_code == 0
    judged(monkeypatch, "averaged_if_better", verdict)
    result = xpi_train(*QUANTIZED, "--average-with", "other")
    assert result.exit_code == 0, result.output
    assert f"average {verdict}, judged by the validation accuracy of the last" in result.stderr
    told = json.loads(result.stdout)
    assert (told["fine_tune"], told["average"]) == (None, verdict)
    bundle, own = Bundle.load(tmp_path / "run" / "bundle"), read_weights(tmp_path / "run")
    weight = "blocks.0.branch.classifier.weight"
    assert torch.equal(bundle.network.state_dict()[weight], own[weight]) == (verdict == "undone")
    spread = CarryQuantization(4)
    state = bundle.network.eval().start(separable.train.images[:CENTRE_IMAGES])
    for number in (1, 2, 3):
        state = bundle.network.advance(state, number)
        spread.initialise(number, state.carry)
    for name, values in spread.learned().items():
        assert torch.allclose(bundle.centres[name], values, atol=1e-5) == (verdict == "kept")


def test_a_plain_network_is_trained_and_packed(xpi_train, monkeypatch, plain_spec, tmp_path):
    """By its own recipe, resumed too; the table numbers exits by their blocks."""
    plain = ARCHITECTURES["plain12"]._replace(build=lambda splits: PlainNetwork(plain_spec))
    monkeypatch.setitem(ARCHITECTURES, "plain12", plain)
    options = ("--architecture", "plain12", "--epochs", "1")
    for more in ((), ("--resume",)):
        result = xpi_train(*options, *more)
        assert result.exit_code == 0, result.output
        rows = [line.split("│")[1].strip() for line in result.stdout.splitlines() if "%" in line]
        assert rows == ["2", "4"]
    bundle = Bundle.load(tmp_path / "run" / "bundle")
    assert bundle.network.exits == (2, 4)
    assert (bundle.manifest.network.kind, bundle.centres) == ("plain", {})


def test_a_training_that_a_plain_network_cannot_have_is_refused(xpi_train, tmp_path):
    """Before anything is trained or written."""
    result = xpi_train("--architecture", "single12", "--training", "xai")
    assert isinstance(result.exception, TrainingError)
    assert "only networks of Xpi blocks" in str(result.exception)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("architecture", ["b_alexnet", "msdnet21"])
def test_a_network_of_the_zoo_is_trained_and_packed(
    xpi_train, monkeypatch, separable, tmp_path, architecture
):
    """With a joint fine-tune; its bundle codes carries by what learns nothing of their shape."""

    def small(splits):
        colours = colour_statistics(separable.train.images)
        network = ZOO[architecture](5, (10, 6), *colours, width=0.1)
        if isinstance(network, MsdNetwork):
            return MsdNetwork(network.spec.model_copy(update={"blocks": 3}))
        return network

    monkeypatch.setitem(
        ARCHITECTURES, architecture, ARCHITECTURES[architecture]._replace(build=small)
    )
    result = xpi_train(
        "--architecture", architecture, "--epochs", "1", "--fine-tune-epochs", "1", "--json"
    )
    assert result.exit_code == 0, result.output
    bundle = Bundle.load(tmp_path / "run" / "bundle")
    assert bundle.manifest.codec == "shuffled_lz4"
    assert bundle.network.exits == tuple(range(1, bundle.network.num_blocks + 1))
    told = json.loads(result.stdout)["validation_accuracy"]
    assert exit_accuracies(bundle.network, separable.validation) == pytest.approx(told)
