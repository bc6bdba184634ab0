"""A host of the testbed: a network namespace with an address of its own.

    Testbed ─► Host ─► run, popen: a program on it
                   └─► socket: one of this process, but on it

All hosts share this machine's files, processes and processors; only the network is their own.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from xpi_ray.errors import XpiError

PREFIX = "xpi-tb-"
"""Namespaces, network devices and cgroups of the testbed are named so, and nothing else is: by it
is found what a crashed run left."""
NAMESPACES = Path("/var/run/netns")  # where `ip netns` keeps them
CLONE_NEWNET = 0x40000000  # linux/sched.h
GRACE_S = 5.0  # between asking a process to end and killing it


class TestbedError(XpiError):
    """The testbed cannot be set up here, or a command of it failed."""

    __test__ = False  # no test, whatever its name says


class Host:
    """A network namespace, which lives until ``close``.

    Args:
        name: Of the host, such as ``cloud``; the namespace's has the prefix before it.
        address: Where the others reach it, IPv4.

    Raises:
        TestbedError: The namespace cannot be made, as without root.
    """

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        self.namespace = PREFIX + name
        command("ip", "netns", "add", self.namespace)
        self.ip("link", "set", "lo", "up")

    def ip(self, *words: str) -> str:
        """Run ``ip`` on it and return what it prints."""
        return command("ip", "-n", self.namespace, *words)

    def run(self, *words: str, environment: Mapping[str, str] | None = None) -> str:
        """Run a program to its end and return what it prints.

        Args:
            words: The program and its arguments.
            environment: What it gets beside this process's own.

        Raises:
            TestbedError: It failed; the message is what it said.
        """
        return command(*self._within(words), environment=environment)

    def popen(
        self,
        *words: str,
        environment: Mapping[str, str] | None = None,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> subprocess.Popen[str]:
        """Start a program and return it; what still runs when the host is closed is ended.

        Args:
            words: The program and its arguments.
            environment: What it gets beside this process's own.
            stdin: As in ``subprocess.Popen``, as are the next two.
            stdout: Likewise.
            stderr: Likewise.
        """
        whole = os.environ | dict(environment or {})
        return subprocess.Popen(
            self._within(words), env=whole, text=True, stdin=stdin, stdout=stdout, stderr=stderr
        )

    def _within(self, words: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, *words]

    def socket(
        self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, protocol: int = 0
    ) -> socket.socket:
        """A socket of this process that sends and receives as if it ran on this host."""
        libc = ctypes.CDLL(None, use_errno=True)
        with (
            Path("/proc/thread-self/ns/net").open() as own,
            (NAMESPACES / self.namespace).open() as other,
        ):
            _enter(libc, other.fileno())
            try:
                return socket.socket(family, kind, protocol)
            finally:
                _enter(libc, own.fileno())

    def received_bytes(self, device: str) -> int:
        """What came in by a device since it was made, with Ethernet's headers."""
        (told,) = json.loads(self.ip("-json", "-s", "link", "show", device))
        return int(told["stats64"]["rx"]["bytes"])

    def pids(self) -> list[int]:
        """Every process on it."""
        return pids_in(self.namespace)

    def end(self, but: Collection[int] = ()) -> None:
        """End all processes on it, except ``but``."""
        end_processes([pid for pid in self.pids() if pid not in but])

    def close(self) -> None:
        """End its processes and remove it, with its devices."""
        remove_namespace(self.namespace)


def _enter(libc: ctypes.CDLL, descriptor: int) -> None:
    """Put the calling thread into a network namespace."""
    if libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot change the network namespace; it takes root")


def command(*words: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a program on this machine and return what it prints.

    Raises:
        TestbedError: It is not there, or failed.
    """
    whole = os.environ | dict(environment or {})
    try:
        done = subprocess.run(words, env=whole, capture_output=True, text=True, check=True)
    except FileNotFoundError as err:
        raise TestbedError(f"there is no {words[0]} here: {err}") from err
    except subprocess.CalledProcessError as err:
        said = "\n".join(part.strip() for part in (err.stdout, err.stderr) if part.strip())
        raise TestbedError(f"`{' '.join(words)}` failed: {said or err}") from err
    return done.stdout


def namespaces() -> list[str]:
    """Those of the testbed, whoever made them."""
    if not NAMESPACES.is_dir():
        return []
    return sorted(path.name for path in NAMESPACES.glob(f"{PREFIX}*"))


def pids_in(namespace: str) -> list[int]:
    """Every process in a namespace."""
    return [int(line) for line in command("ip", "netns", "pids", namespace).split()]


def remove_namespace(namespace: str) -> None:
    """End what runs in it and remove it; its devices go with it."""
    while pids := pids_in(namespace):  # what was ended may have started others
        end_processes(pids)
    command("ip", "netns", "delete", namespace)


def end_processes(pids: Sequence[int], grace_s: float = GRACE_S) -> None:
    """Ask processes to end, kill those that have not after ``grace_s``, and wait until all have."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in filter(_runs, pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        end_s = time.monotonic() + grace_s
        while any(map(_runs, pids)) and time.monotonic() < end_s:
            time.sleep(0.02)


def _runs(pid: int) -> bool:
    """Whether there is such a process; one that has ended and waits for its parent is none."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
