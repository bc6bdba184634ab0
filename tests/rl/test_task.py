import numpy as np
import pytest

from rl.task import DAY_S, TEST_TRACES, UPLINK_SHARE, make_task, read_sources
from xpi_ray.bundle import Bundle
from xpi_ray.errors import DataError
from xpi_ray.link.traces import read, trace_folder
from xpi_ray.policies.learned import SHORTLIST, kind_of
from xpi_ray.policies.plan import SLO_CLASSES
from xpi_ray.policies.utility import Weights
from xpi_ray.simulation.arrivals import read_counts


@pytest.fixture
def folder(tmp_path):
    """Make-believe traces and recordings under the names of real ones."""
    for name in ("uplink", "5g", "arrivals"):
        (tmp_path / name).mkdir()
    for name in ("ATT-LTE-driving.up", "other.up"):
        (tmp_path / "uplink" / name).write_text("1\n5\n9\n")
    for name in ("5g_trace_60_walking", "5g_trace_1_driving"):
        (tmp_path / "5g" / name).write_text("1 100\n2 300\n")
    days = "1\n" * DAY_S + "7\n" * 5
    (tmp_path / "arrivals" / "twitter_days_1_2.txt").write_text(days)
    (tmp_path / "arrivals" / "azure_code.csv").write_text(
        "TIMESTAMP\n2023-11-16 18:17:03.97\n2023-11-16 18:17:04.03\n"
    )
    return tmp_path


def test_what_is_judged_by_was_never_trained_on(folder):
    """Whole traces by name; the second day and the other service."""
    train, test = read_sources(folder)
    assert {trace.name for trace in train.traces} == {"other.up", "5g_trace_1_driving"}
    assert {trace.name for trace in test.traces} == {"ATT-LTE-driving.up", "5g_trace_60_walking"}
    assert (len(train.recordings[0]), set(train.recordings[0])) == (DAY_S, {1.0})
    assert [counts.tolist() for counts in test.recordings] == [[7.0] * 5, [2.0]]


def test_a_downlink_stands_in_for_an_uplink(folder):
    """A share of it."""
    train, _ = read_sources(folder)
    trace = next(trace for trace in train.traces if trace.name.startswith("5g"))
    assert trace.mean_bps(0, 2) == pytest.approx(200e6 * UPLINK_SHARE)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("uplink/other.up 5g/5g_trace_1_driving", "expected traces to train with"),
        ("uplink/ATT-LTE-driving.up 5g/5g_trace_60_walking", "some of ATT-LTE-driving.up"),
        ("arrivals/azure_code.csv", "azure_code.csv is no recording"),
        ("arrivals/twitter_days_1_2.txt", "twitter_days_1_2.txt is no recording"),
    ],
)
def test_missing_files_are_named(folder, lost, message):
    """So that whoever set the folder knows what belongs there."""
    for name in lost.split():
        (folder / name).unlink()
    with pytest.raises(DataError, match=message):
        read_sources(folder)


def test_a_recording_of_one_day_is_too_short(folder):
    """There would be nothing to judge by."""
    (folder / "arrivals" / "twitter_days_1_2.txt").write_text("1\n2\n3\n")
    with pytest.raises(DataError, match="more than a day"):
        read_sources(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path, monkeypatch):
    """Given, or by the environment."""
    with pytest.raises(DataError, match="expected traces to train with"):
        read_sources(tmp_path / "nowhere")
    monkeypatch.setenv("XPI_TRACES_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="set XPI_TRACES_DIR"):
        read_sources()


def test_real_traces_are_all_there():
    """Every trace to judge by exists, and is in no training."""
    if trace_folder() is None:
        pytest.skip("no ../shared/traces; set XPI_TRACES_DIR to a folder of real traces")
    train, test = read_sources()
    names = [{trace.name for trace in part.traces} for part in (train, test)]
    assert names[1] == set(TEST_TRACES)
    assert not names[0] & names[1]
    assert len(names[0]) >= len(names[1])
    days = read_counts(trace_folder() / "arrivals" / "twitter_days_1_2.txt")
    assert len(train.recordings[0]) + len(test.recordings[0]) == len(days)
    one = read(trace_folder() / "5g" / "5g_trace_60_walking")
    (scaled,) = (trace for trace in test.traces if trace.name == one.name)
    assert scaled.carried == pytest.approx(one.carried * UPLINK_SHARE)


@pytest.fixture(scope="module")
def bundle():
    """The packaged one."""
    return Bundle.load()


def test_a_task_is_made_of_a_bundle(bundle, task):
    """Its profile and outcomes, its static plan before any other, a plan of every kind."""
    weights = Weights(edge_cost=0.5)
    made = make_task(bundle, SLO_CLASSES, task.sources, weights)
    assert made.setting.profile is bundle.manifest.profiles["default"]
    assert made.setting.outcomes is bundle.population
    assert (made.setting.trusted == bundle.outcomes.edge_trusted()).all()
    assert made.setting.static.partition == bundle.manifest.static_plan.partition
    assert made.viewer.weights == weights
    every = bundle.candidates()
    decisions = {every[index].decision for index in made.kept}
    assert decisions == {candidate.decision for candidate in made.viewer.candidates}
    blocks = bundle.network.num_blocks
    assert {kind_of(every[i], blocks) for i in made.kept} == set(range(SHORTLIST))
    assert len(made.kept) < len(every)


def test_requests_may_bring_other_images(bundle, task):
    """Their outcomes are simulated; plans are chosen by the bundle's."""
    flipped = bundle.outcomes._replace(correct=~bundle.outcomes.correct)
    made = make_task(bundle, SLO_CLASSES, task.sources, outcomes=flipped)
    twin = make_task(bundle, SLO_CLASSES, task.sources)
    assert made.setting.outcomes is flipped
    assert made.kept == twin.kept
    every = {candidate.decision: candidate for candidate in bundle.candidates()}
    for candidate in made.viewer.candidates:
        assert np.array_equal(candidate.accuracies, every[candidate.decision].accuracies)
