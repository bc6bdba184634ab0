import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.hosts import PREFIX
from benchmarks.hosts import TestbedError as Refused
from benchmarks.share import LEAST_QUOTA_US, PERIOD_US, Share, quota, remove_shares


@pytest.fixture
def version1(tmp_path):
    """Where a machine with version 1 keeps its cgroups."""
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1")
    return tmp_path


@pytest.fixture
def version2(tmp_path):
    """The same of version 2."""
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory")
    return tmp_path


def enter(share):
    """Set up without the kernel behind it, which would remove the files with the folder."""
    return share.__enter__()


def test_version_1_has_a_file_for_each(version1):
    """Period and quota in microseconds, below the controller's own folder."""
    share = enter(Share("edge-1", 0.5, version1))
    assert share.path == version1 / "cpu" / f"{PREFIX}edge-1"
    assert (share.path / "cpu.cfs_period_us").read_text() == str(PERIOD_US)
    assert (share.path / "cpu.cfs_quota_us").read_text() == str(PERIOD_US // 2)


def test_version_2_has_one_file_and_must_be_switched_on(version2):
    """Quota and period stand in one line, and the parent hands the controller down."""
    share = enter(Share("edge-1", 0.5, version2))
    assert share.path == version2 / f"{PREFIX}edge-1"
    assert (share.path / "cpu.max").read_text() == f"{PERIOD_US // 2} {PERIOD_US}"
    assert (version2 / "cgroup.subtree_control").read_text() == "+cpu"


def test_a_process_is_added_by_its_number(version1):
    """As the kernel wants it."""
    share = enter(Share("edge-1", 0.5, version1))
    share.add(4711)
    assert share.pids == [4711]


@given(st.floats(0.01, 64), st.booleans())
def test_a_quota_is_its_share_and_one_that_the_kernel_takes(cores, unified):
    """Within 1 % of what was asked for, and never below the least."""
    files = quota(cores, unified)
    if unified:
        quota_us, period_us = map(int, files["cpu.max"].split())
    else:
        period_us, quota_us = map(int, files.values())
        assert list(files) == ["cpu.cfs_period_us", "cpu.cfs_quota_us"]
    assert quota_us >= LEAST_QUOTA_US
    assert quota_us / period_us == pytest.approx(cores, rel=0.01)


@pytest.mark.parametrize("cores", [0.0, -1.0, float("nan")])
def test_no_share_is_refused(version1, cores):
    """A quota of nothing would stop what is in it for ever."""
    with pytest.raises(Refused, match="above 0 cores"):
        Share("edge-1", cores, version1)


def test_a_machine_without_cgroups_says_so(tmp_path):
    """There is nothing to limit by, and nothing to remove."""
    with pytest.raises(Refused, match="no cgroup controller"):
        Share("edge-1", 0.5, tmp_path)
    assert remove_shares(tmp_path) == []


def test_a_share_can_be_changed(version1):
    """What is in it stays, and goes by another quota."""
    share = enter(Share("edge-1", 0.5, version1))
    share.add(4711)
    share.resize(0.2)
    assert (share.path / "cpu.cfs_quota_us").read_text() == str(PERIOD_US // 5)
    assert share.pids == [4711]
    with pytest.raises(Refused, match="above 0 cores"):
        share.resize(0.0)


@pytest.mark.parametrize("apart", [True, False])
def test_version_1_counts_time_where_it_may_be_apart(version1, apart):
    """Processes are added there too, and what a crash left there is removed."""
    counting = version1 / "cpuacct"
    if apart:
        counting.mkdir()
    else:
        counting.symlink_to(version1 / "cpu")
    share = enter(Share("edge-1", 0.5, version1))
    share.add(4711)
    own = counting / f"{PREFIX}edge-1"
    assert (own / "cgroup.procs").read_text() == "4711"
    (own / "cpuacct.usage").write_text("12500000\n")
    assert share.used_ms == 12.5


def test_version_2_counts_time_beside_the_quota(version2):
    """In microseconds, among other facts."""
    share = enter(Share("edge-1", 0.5, version2))
    (share.path / "cpu.stat").write_text("usage_usec 3500\nuser_usec 1000\n")
    assert share.used_ms == 3.5
