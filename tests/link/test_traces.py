import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.errors import DataError
from xpi_ray.link.traces import MAX_DURATION_S, Trace, read, trace_folder


@pytest.fixture
def trace():
    """8,000 bit in the first second, nothing in the next, then 24,000."""
    return Trace("t", 1.0, np.array([8_000.0, 0.0, 24_000.0]))


def test_mahimahi_counts_packets_of_1500_bytes(tmp_path):
    """Two packets in millisecond 1 and one in millisecond 3 last four milliseconds."""
    path = tmp_path / "link.up"
    path.write_text("1\n1\n3\n")
    trace = read(path)
    assert trace.duration_s == pytest.approx(0.004)
    assert trace.mean_bps(0, 0.004) == pytest.approx(3 * 12_000 / 0.004)
    assert trace.mean_bps(0.001, 0.002) == pytest.approx(24e6)
    assert trace.mean_bps(0.002, 0.003) == 0


def test_two_columns_are_seconds_and_megabits(tmp_path):
    """A line of 12.5 Mbit/s holds for its second."""
    path = tmp_path / "link"
    path.write_text("1.0\t80.0\n2.0\t12.5\n")
    assert read(path).mean_bps(1, 2) == pytest.approx(12.5e6)
    assert read(path).scaled(0.1).mean_bps(0, 1) == pytest.approx(8e6)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.up", ""),
        ("a.up", "1 2\n"),
        ("a.up", "x\n"),
        ("a.up", "nan\n"),
        ("a.up", "-1\n"),
        ("a.up", "5\n4\n"),
        ("a.up", f"{1000 * (MAX_DURATION_S + 1)}\n"),
        ("a", "1\n"),
        ("a", "1 2\n3\n"),
        ("a", "1 0\n2 0\n"),
        ("a", "1 -5\n2 9\n"),
        ("a", "1 inf\n"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path, name, text):
    """Neither form, times that fall, or no capacity: an error that says so, and no allocation."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match="a"):
        read(path)


def test_a_missing_file_is_a_data_error(tmp_path):
    """The message names the file."""
    with pytest.raises(DataError, match="nowhere"):
        read(tmp_path / "nowhere.up")


def test_a_frame_waits_for_the_link(trace):
    """What the first second leaves over goes through in the third."""
    assert trace.delivered_s(0.0, 500) == pytest.approx(0.5)
    assert trace.delivered_s(0.5, 1_000) == pytest.approx(2 + 4_000 / 24_000)
    assert trace.delivered_s(1.5, 0) == 1.5


def test_it_begins_anew(trace):
    """After its last step comes its first."""
    assert trace.delivered_s(2.0, 4_000) == pytest.approx(4.0)
    assert trace.mean_bps(3.0, 4.0) == pytest.approx(8_000)
    assert trace.mean_bps(2.5, 3.5) == pytest.approx(12_000 + 4_000)


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=6).filter(lambda bits: max(bits) > 1),
    st.floats(0, 20),
    st.integers(1, 10_000),
)
def test_delivery_takes_what_was_carried_meanwhile(bits, start_s, size_bytes):
    """Until the last bit is through, the link carries just the frame."""
    trace = Trace("t", 0.5, np.array(bits))
    end_s = trace.delivered_s(start_s, size_bytes)
    assert end_s > start_s
    carried = trace.mean_bps(start_s, end_s) * (end_s - start_s)
    assert carried == pytest.approx(8 * size_bytes, rel=1e-6, abs=1e-3)


def test_the_folder_is_that_of_the_variable(tmp_path, monkeypatch):
    """$XPI_TRACES_DIR comes first; a folder that is not there is none."""
    monkeypatch.setenv("XPI_TRACES_DIR", str(tmp_path))
    assert trace_folder() == tmp_path
    monkeypatch.setenv("XPI_TRACES_DIR", str(tmp_path / "nowhere"))
    assert trace_folder() is None


def test_real_traces_are_read():
    """All of them, with the mean capacity that they are known for."""
    folder = trace_folder()
    if folder is None:
        pytest.skip("no ../shared/traces; set XPI_TRACES_DIR to a folder of real traces")
    paths = [*(folder / "uplink").glob("*.up"), *(folder / "5g").iterdir()]
    means = {path.name: (t := read(path)).mean_bps(0, t.duration_s) for path in paths}
    assert means["TMobile-LTE-short.up"] == pytest.approx(13.3e6, rel=0.01)
    assert all(0.5e6 < mean < 1e9 for mean in means.values())
