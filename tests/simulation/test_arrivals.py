import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpi_ray.errors import DataError
from xpi_ray.link.traces import trace_folder
from xpi_ray.simulation.arrivals import bursts, poisson, read_counts, recorded, varying

RECORDING = np.array([3.0, 0, 0, 9, 1, 0, 5, 4])


@pytest.mark.parametrize(
    "draw",
    [poisson, bursts, lambda *args: recorded(RECORDING, *args)],
    ids=["poisson", "bursts", "recorded"],
)
def test_arrivals_rise_within_the_run_and_have_their_rate(draw):
    """Over a long run the mean rate is what was asked for; the same seed draws the same."""
    times = draw(20.0, 5_000.0, np.random.default_rng(0))
    assert (np.diff(times) >= 0).all()
    assert 0 <= times[0] <= times[-1] < 5e6
    assert len(times) == pytest.approx(20 * 5_000, rel=0.04)
    assert (draw(20.0, 5_000.0, np.random.default_rng(0)) == times).all()


def test_bursts_are_bursty_and_poisson_is_not():
    """Counts per second vary as much as their mean, or several times as much."""
    for draw, low, high in ((poisson, 0.9, 1.1), (bursts, 4.0, 40.0)):
        times = draw(20.0, 5_000.0, np.random.default_rng(1))
        counts = np.histogram(times, 5_000, (0, 5e6))[0]
        assert low < counts.var() / counts.mean() < high


def test_a_rate_that_varies_is_followed():
    """All in the first half, none in the second."""
    times = varying(
        lambda times: np.where(times < 50_000, 10.0, 0.0), 10.0, 100.0, np.random.default_rng(0)
    )
    assert times.max() < 50_000
    assert len(times) == pytest.approx(500, rel=0.2)


@settings(max_examples=25)
@given(seed=st.integers(0, 100), duration_s=st.floats(2.5, 40.0))
def test_a_recording_keeps_its_shape(seed, duration_s):
    """Seconds without requests stay empty, wherever the replay begins, however often it loops."""
    times = recorded(RECORDING, 500.0, duration_s, np.random.default_rng(seed))
    seconds = np.unique((times / 1000).astype(int))
    empty = RECORDING == 0
    fits = [not np.roll(empty, -first)[seconds % len(RECORDING)].any() for first in range(8)]
    assert any(fits)
    assert len(seconds) > duration_s / 2 - 2


def test_gaps_are_not_drawn():
    """Only where more than half the seconds have requests; without such a part it is an error."""
    holes = np.concatenate([np.zeros(100), np.ones(10), np.zeros(100)])
    for seed in range(20):
        times = recorded(holes, 100.0, 8.0, np.random.default_rng(seed))
        assert len(np.unique((times / 1000).astype(int))) >= 5
    with pytest.raises(DataError, match="gaps over half the time in all parts of 30 s"):
        recorded(holes, 1.0, 30.0, np.random.default_rng(0))


def test_counts_are_read(tmp_path):
    """A count a line, or moments that are counted by the second."""
    lines, table = tmp_path / "a.txt", tmp_path / "a.csv"
    lines.write_text("3\n0\n2.0\n")
    table.write_text(
        "TIMESTAMP,Tokens\n2023-11-16 18:17:03.9799600,5\n2023-11-16 18:17:04.0319600,7\n"
        "2023-11-16 18:17:06.9999600,7\n"
    )
    assert read_counts(lines).tolist() == [3, 0, 2]
    assert read_counts(table).tolist() == [2, 0, 0, 1]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", ""),
        ("a.txt", "one two"),
        ("a.txt", "1\n-1\n"),
        ("a.txt", "1\nnan\n"),
        ("a.csv", ""),
        ("a.csv", "TIME\n2023-11-16 18:17:03\n"),
        ("a.csv", "TIMESTAMP\n"),
        ("a.csv", "TIMESTAMP\nyesterday\n"),
        ("a.csv", "A,TIMESTAMP\n1\n"),
        ("a.csv", "TIMESTAMP\n1970-01-01 00:00:00\n2023-11-16 18:17:03\n"),
        ("a.csv", 'TIMESTAMP\n"' + "9" * 200_000 + '"\n'),
        ("a.csv", "TIMESTAMP\n\x002023\n"),
        ("missing.csv", None),
        ("missing.txt", None),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path, name, text):
    """The error names the file, and nothing large is allocated."""
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=name):
        read_counts(path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    """Whatever the suffix."""
    for name in ("a.txt", "a.csv"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00TIMESTAMP\n\x80")
        with pytest.raises(DataError, match=name):
            read_counts(tmp_path / name)


def test_real_recordings_are_read():
    """Two days of one service by the second, and an hour of another."""
    folder = trace_folder()
    if folder is None:
        pytest.skip("no ../shared/traces; set XPI_TRACES_DIR to a folder of real traces")
    days = read_counts(folder / "arrivals" / "twitter_days_1_2.txt")
    hour = read_counts(folder / "arrivals" / "azure_code.csv")
    assert len(days) > 1.9 * 86_400
    assert 3_000 < len(hour) < 4_000
    assert days.mean() > 1
    assert hour.sum() > 1_000
