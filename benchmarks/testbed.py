"""This machine as two hosts or more: a cloud, and edges that a slow link joins to it.

    python -m benchmarks.testbed [--check | --down | --measure]

    cloud ◄─ veth, tbf both ways ─► edge 1      each a network namespace with its own address
      ▲
      └──── the same through a relay ─► edge 2  where there is delay or loss

Processors and files are shared; ``Share`` makes a host weak. It takes root, and Linux with
iproute2: ``--check`` says whether this machine can. There is one testbed at a time. It ends with
the context that made it; what a killed run left goes when the next one begins, or by ``--down``.
``--measure`` writes ``benchmarks/results/testbed.json``: how well the testbed does what it is told
(benchmarks/testbed_measure.py).
"""

import argparse
import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from rich.progress import Progress

from benchmarks import relay
from benchmarks.estimator import DOWNLINK_SCALE, links
from benchmarks.hosts import PREFIX, Host, TestbedError, namespaces, remove_namespace
from benchmarks.link import End, Link
from benchmarks.result import Row, write
from benchmarks.share import PERIOD_US, remove_shares
from benchmarks.testbed_measure import (
    CONSTANT_MBPS,
    SECONDS,
    constant,
    cut,
    rates,
    relayed,
    round_trip,
    shares,
)
from deployments.doctor import check_testbed
from xpi_ray.link.traces import trace_folder

NETWORK = "198.18.0"
"""Kept free for benchmarks of networks (RFC 2544), so a user's own network hardly has it."""
MOST_SITES = 200
LOCK = Path("/run/xpi-testbed.lock")
TEMPORARY = Path("/tmp")  # names of sockets must be short
FOLDER_PREFIX = "xpi-testbed-"
# What is measured.
ONE_WAY_MS = (5.0, 20.0)
LOSS = 0.02


class Testbed:
    """Use it as a context: hosts and links are there on entry, and gone after exit.

    Args:
        sites: A name for each edge.
        one_way_ms: Delay of each frame on each link, both ways; beside what the rate makes.
        loss: Share of frames that are lost, 0..1, both ways.
        seed: Of the losses.

    Raises:
        TestbedError: On entry: this machine cannot, or another testbed is up.
    """

    __test__ = False  # no test, whatever its name says

    def __init__(
        self,
        sites: Sequence[str] = ("site-1",),
        one_way_ms: float = 0.0,
        loss: float = 0.0,
        seed: int = 0,
    ) -> None:
        if not 0 < len(set(sites)) == len(sites) <= MOST_SITES:
            raise TestbedError(f"a testbed has 1 to {MOST_SITES} sites of different names")
        if not (one_way_ms >= 0 and 0 <= loss < 1):
            raise TestbedError(
                f"delay must be at least 0 ms and loss from 0 to below 1, not {one_way_ms}, {loss}"
            )
        self.sites = tuple(sites)
        self._one_way_ms, self._loss, self._seed = one_way_ms, loss, seed
        self.edges: dict[str, Host] = {}
        """By site."""
        self.links: dict[str, Link] = {}
        """Each edge's to the cloud, by site."""
        self.relays: dict[str, Host] = {}
        """Where each link's relay runs, if it has one, by site."""
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        row = check_testbed()
        if row.status != "ok":
            raise TestbedError(f"no testbed on this machine: {row.found}; {row.advice}")
        with contextlib.ExitStack() as stack:
            stack.enter_context(_alone())
            _sweep()
            folder = tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX, dir=TEMPORARY)
            self.folder = Path(stack.enter_context(folder))
            """For the hosts' files, on this machine's disk."""
            self.cloud = self._host(stack, "cloud", f"{NETWORK}.1")
            self.cloud.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
            for number, site in enumerate(self.sites, 1):
                self._add(stack, number, site)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @staticmethod
    def _host(stack: contextlib.ExitStack, name: str, address: str) -> Host:
        host = Host(name, address)
        stack.callback(host.close)
        return host

    def _add(self, stack: contextlib.ExitStack, number: int, site: str) -> None:
        """One more edge and its link."""
        edge = self._host(stack, f"edge-{number}", f"{NETWORK}.{number + 1}")
        device = f"{PREFIX}{number}"
        hardware = [f"02:00:00:00:{number:02x}:{end:02x}" for end in (1, 2)]
        if self._one_way_ms or self._loss:
            between = self._host(stack, f"relay-{number}", "")
            devices = [f"{PREFIX}edge", f"{PREFIX}cloud"]
            for host, address, own in zip((edge, self.cloud), hardware, devices, strict=True):
                _join(host, device, address, between, own)
            if self._loss:  # it is of frames as the link sees them, so the kernel may join none
                for host in (edge, self.cloud):
                    host.ip("link", "set", device, "gso_max_segs", "1")
            self._relay(stack, between, devices, number)
            self.relays[site] = between
        else:
            _join(edge, device, hardware[0], self.cloud, device, hardware[1])
        for host, other, address in (
            (edge, self.cloud, hardware[1]),
            (self.cloud, edge, hardware[0]),
        ):
            host.ip("address", "add", host.address, "peer", other.address, "dev", device)
            # Asking for it would fail, and be told to programs, while the link carries nothing.
            host.ip("neighbour", "add", other.address, "lladdr", address, "dev", device)
        edge.ip("route", "add", "default", "via", self.cloud.address)
        link = Link(End(edge, device), End(self.cloud, device))
        stack.callback(link.close)
        self.edges[site], self.links[site] = edge, link

    def _relay(
        self, stack: contextlib.ExitStack, between: Host, devices: Sequence[str], number: int
    ) -> None:
        """Start it, and wait until it carries."""
        options = [f"--one-way-ms={self._one_way_ms}", f"--loss={self._loss}"]
        options.append(f"--seed={self._seed + number}")
        words = [sys.executable, relay.__file__, *devices, *options]
        process = stack.enter_context(between.popen(*words, stdout=subprocess.PIPE))
        stack.callback(process.terminate)
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise TestbedError("the relay did not start; what it said is above")


def _join(
    one: Host, device: str, hardware: str, other: Host, peer: str, peer_hardware: str = ""
) -> None:
    """A cable between two hosts, with a device at each end."""
    words = ["link", "add", device, "address", hardware, "type", "veth", "peer", "name", peer]
    if peer_hardware:
        words += ["address", peer_hardware]
    one.ip(*words, "netns", other.namespace)
    for host, end in ((one, device), (other, peer)):
        # Without addresses of its own making IPv6 is silent.
        host.ip("link", "set", end, "addrgenmode", "none", "up")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Nobody else has a testbed while the context lasts; a process that dies gives it up."""
    with LOCK.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise TestbedError(
                f"process {lock.read().strip()} has a testbed up; wait for it, or end it"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def down() -> list[str]:
    """Remove what a killed run left, and end its processes; if nothing is left, nothing happens.

    Returns:
        What was removed.

    Raises:
        TestbedError: A testbed is up, whose process is alive.
    """
    with _alone():
        return _sweep()


def _sweep() -> list[str]:
    found = namespaces()
    for name in found:
        remove_namespace(name)
    found += remove_shares()
    for folder in TEMPORARY.glob(f"{FOLDER_PREFIX}*"):
        if folder.stat(follow_symlinks=False).st_uid == os.geteuid():
            shutil.rmtree(folder)
            found.append(str(folder))
    return found


def main() -> int:
    """Do as told; the exit code is 1 if this machine cannot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    task = parser.add_mutually_exclusive_group()
    task.add_argument("--check", action="store_true", help="only say whether this machine can")
    task.add_argument("--down", action="store_true", help="remove what a killed run left")
    task.add_argument("--measure", action="store_true", help="the default")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of each trace")
    options = parser.parse_args()
    found = check_testbed()
    if options.check or found.status != "ok":
        print(f"{found.status}: {found.found}", *filter(None, [found.advice]), sep="\n")
        return int(found.status != "ok")
    if options.down:
        removed = down()
        print("removed", *removed, sep="\n") if removed else print("nothing was left")
        return 0
    with Progress() as progress:
        bar = progress.add_task("rows", total=None)
        rows: list[Row] = []
        for row in _measure(options.seconds):
            rows.append(row)
            progress.advance(bar)
    settings = {
        "seconds": options.seconds,
        "period_us": PERIOD_US,
        "downlink_scale": DOWNLINK_SCALE,
    }
    print(write("testbed", settings, rows))
    return 0


def _measure(seconds: int) -> Iterator[Row]:
    """Every row of the result."""
    with Testbed() as testbed:
        (link,) = testbed.links.values()
        yield round_trip(link, 0.0, 0.0)
        yield from shares(link.up.host)
        recorded = list(links(folder)) if (folder := trace_folder()) else []
        traces = [constant(mbps) for mbps in CONSTANT_MBPS] + recorded
        yield from rates(link, traces, seconds)
        yield cut(link)
    for one_way_ms in ONE_WAY_MS:
        with Testbed(one_way_ms=one_way_ms) as testbed:
            (link,), (between,) = testbed.links.values(), testbed.relays.values()
            yield round_trip(link, one_way_ms, 0.0)
            yield from relayed(link, between, one_way_ms, seconds)
    with Testbed(loss=LOSS) as testbed:
        (link,) = testbed.links.values()
        yield round_trip(link, 0.0, LOSS)


if __name__ == "__main__":
    sys.exit(main())
