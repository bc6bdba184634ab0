"""These need root and the kernel's network namespaces, except where they say so."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import testbed
from benchmarks.hosts import NAMESPACES, PREFIX, namespaces
from benchmarks.hosts import TestbedError as Refused
from benchmarks.probe import Flow, round_trips_ms, spin
from benchmarks.share import Share
from deployments.doctor import CGROUPS, Row, check_testbed, cpu_controller
from xpi_ray.link.traces import Trace

ROOT = Path(__file__).parents[2]
CRASH = """
import os, signal
from benchmarks.share import Share
from benchmarks.testbed import Testbed
testbed = Testbed(("site-1", "site-2"), one_way_ms=1).__enter__()
share = Share("crashed", 0.5).__enter__()
process = testbed.edges["site-2"].popen("sleep", "300")
share.add(process.pid)
print(process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def possible():
    """Skips where there can be no testbed."""
    row = check_testbed()
    if row.status != "ok":
        pytest.skip(f"no testbed on this machine: {row.found}; {row.advice}")
    try:
        testbed.down()
    except Refused as err:
        pytest.skip(str(err))


def rate_bps(link, seconds=0.6):
    """What comes up the link in Ethernet's frames while TCP fills it."""
    with Flow(link.up.host, link.down.host, link.down.device) as flow:
        time.sleep(0.2)
        first = flow.now()
        time.sleep(seconds)
        last = flow.now()
    return 8 * (last.frames_bytes - first.frames_bytes) / (last.time_s - first.time_s)


def test_hosts_are_joined_by_a_link_of_the_rate_that_was_set(possible):
    """8 Mbit/s, loosely, and a trace at 2 Mbit/s; a site reaches the other by way of the cloud."""
    with testbed.Testbed(("site-1", "site-2")) as hosts:
        link = hosts.links["site-1"]
        one, other = hosts.edges.values()
        assert len(list(round_trips_ms(one, other, 3))) == 3
        link.set_rate(8e6)
        assert rate_bps(link) == pytest.approx(8e6, rel=0.3)
        with link.replay(Trace("slow", 1.0, np.array([2e6]))):
            assert rate_bps(link) == pytest.approx(2e6, rel=0.3)
        assert hosts.folder.is_dir()
    assert not hosts.folder.exists()
    assert namespaces() == []
    assert testbed.down() == []


def test_nothing_crosses_a_cable_that_is_pulled(possible):
    """Afterwards the rate is as before."""
    with testbed.Testbed() as hosts:
        link = hosts.links["site-1"]
        link.set_rate(8e6)
        before = hosts.cloud.received_bytes(link.down.device)
        link.up.cut()
        assert list(round_trips_ms(hosts.edges["site-1"], hosts.cloud, 1)) == []
        assert hosts.cloud.received_bytes(link.down.device) == before
        link.cut(0.0)
        assert rate_bps(link) == pytest.approx(8e6, rel=0.3)


def test_a_relay_delays_each_way_and_loses(possible):
    """A round trip takes at least twice the delay, and some of them fail; all goes by the relay."""
    with testbed.Testbed(one_way_ms=5.0, loss=0.05) as hosts:
        taken_ms = list(round_trips_ms(hosts.edges["site-1"], hosts.cloud, 10))
        assert taken_ms
        assert min(taken_ms) >= 10.0
        assert hosts.relays["site-1"].pids()


def test_a_share_holds_a_busy_loop_back(possible):
    """A fifth of a core is not half of one; a program that is not limited gets more."""
    with testbed.Testbed() as hosts, Share("test", 0.2) as share:
        cores, pause_ms = spin(hosts.edges["site-1"], share, 0.5)
        assert 0.02 < cores < 0.4
        assert pause_ms > 0
    assert not share.path.exists()


def test_programs_run_on_their_host(possible):
    """They see its address and no other, and are ended with it."""
    with testbed.Testbed() as hosts:
        edge = hosts.edges["site-1"]
        told = edge.run("ip", "-brief", "-4", "address")
        assert edge.address in told
        assert "eth0" not in told
        process = edge.popen("sleep", "300")
        give_up_s = time.monotonic() + 10
        while process.pid not in edge.pids():  # `ip` brings it there first
            assert time.monotonic() < give_up_s
            time.sleep(0.01)
    assert process.wait(5) == -15


def test_what_a_crash_left_is_found_and_removed(possible):
    """Namespaces, processes, cgroups and folders go, all of them; a second time is no error."""
    words = [sys.executable, "-c", CRASH]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as crashing:
        pid = int(crashing.stdout.readline())
    assert crashing.returncode == -9
    assert {f"{PREFIX}cloud", f"{PREFIX}edge-2", f"{PREFIX}relay-1"} <= set(namespaces())
    assert Path(f"/proc/{pid}").exists()
    removed = testbed.down()
    assert f"{PREFIX}crashed" in removed
    assert any(name.startswith(str(testbed.TEMPORARY)) for name in removed)
    assert namespaces() == []
    assert not list(NAMESPACES.glob(f"{PREFIX}*"))
    assert not list(cpu_controller(CGROUPS).glob(f"{PREFIX}*"))
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"
    assert testbed.down() == []


def test_there_is_one_testbed_at_a_time(possible):
    """A second one, or its removal, says whose the first is, and leaves it alone."""
    with testbed.Testbed() as hosts:
        with pytest.raises(Refused, match="has a testbed up"), testbed.Testbed():
            pass
        with pytest.raises(Refused, match="has a testbed up"):
            testbed.down()
        assert hosts.cloud.run("echo", "here") == "here\n"


def test_a_change_that_tc_refuses_is_an_error(possible):
    """It says what tc said, and the link goes on."""
    with testbed.Testbed() as hosts:
        link = hosts.links["site-1"]
        with pytest.raises(Refused, match="tc qdisc replace"):
            link.up._tell(f"replace dev {link.up.device} root tbf rate 1mbit")
        link.set_rate(8e6)


def test_a_machine_that_cannot_says_why(monkeypatch):
    """Without root: the doctor's finding and advice, from the class and from the command."""
    row = Row("testbed", "warn", "needs root", "be root")
    monkeypatch.setattr(testbed, "check_testbed", lambda: row)
    with pytest.raises(Refused, match="needs root; be root"), testbed.Testbed():
        pass
    monkeypatch.setattr(sys, "argv", ["testbed", "--check"])
    assert testbed.main() == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"sites": ()},
        {"sites": ("a", "a")},
        {"one_way_ms": -1.0},
        {"loss": 1.0},
        {"loss": float("nan")},
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    """Before anything is set up, so also without root."""
    with pytest.raises(Refused):
        testbed.Testbed(**wrong)
