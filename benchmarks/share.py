"""A part of the machine's processors for some processes, so that a host is as weak as an edge.

    Share(cores) ─► cgroup with a quota ─► add(pid): it, and all that it starts from then on
                └► used_ms: processor time that they had

Within each period the processes may run for ``cores`` times as long; then they wait for the next
one. The kernel's default of 100 ms would stop a request for up to 100 ms at a time.

The kernel sees that a quota is used up when it looks, which is every 4 ms at most kernels: without
a ``Metronome`` work of 4 ms runs through at full speed, and what comes after it waits for that.
"""

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Self

from benchmarks.hosts import PREFIX, TestbedError, end_processes
from deployments.doctor import CGROUPS, cpu_controller

PERIOD_US = 5_000
LEAST_QUOTA_US = 1_000  # the kernel refuses less
BEAT = """
import os, time
parent = os.getppid()
os.sched_setaffinity(0, {{{core}}})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
while os.getppid() == parent:
    for _ in range(1000):
        time.sleep({period_s})
"""


class Share:
    """Use it as a context: on exit its processes run on without a limit.

    Args:
        name: Of the cgroup, behind the prefix.
        cores: How many processors' time the processes get together, above 0; may be a fraction.
        root: Where the machine's cgroups are.

    Raises:
        TestbedError: ``cores`` is not above 0, or the machine cannot limit processes.
    """

    def __init__(self, name: str, cores: float, root: Path = CGROUPS) -> None:
        controller = cpu_controller(root)
        if controller is None:
            raise TestbedError(f"there is no cgroup controller for the processor in {root}")
        self.cores = cores
        self.path = controller / f"{PREFIX}{name}"
        self._files = quota(cores, unified=controller == root)
        self._paths = [folder / self.path.name for folder in _controllers(root)]

    def __enter__(self) -> Self:
        try:
            if "cpu.max" in self._files:
                (self.path.parent / "cgroup.subtree_control").write_text("+cpu")
            for path in self._paths:
                path.mkdir(exist_ok=True)
            self._limit()
        except OSError as err:
            raise TestbedError(f"cannot limit processes by {self.path}: {err}") from err
        return self

    def __exit__(self, *_: object) -> None:
        for path in self._paths:
            for pid in pids_in(path):
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    (path.parent / "cgroup.procs").write_text(str(pid))
            path.rmdir()

    def resize(self, cores: float) -> None:
        """Give its processes another part of the processors from now on."""
        self.cores = cores
        self._files = quota(cores, unified="cpu.max" in self._files)
        self._limit()

    def _limit(self) -> None:
        for name, value in self._files.items():
            (self.path / name).write_text(value)

    def add(self, pid: int) -> None:
        """Limit a process with all its threads; what it started before stays as it was."""
        for path in self._paths:
            (path / "cgroup.procs").write_text(str(pid))

    def add_thread(self, thread: int) -> None:
        """Limit a single thread; only version 1 of cgroups lets it leave its process.

        Raises:
            TestbedError: This machine has version 2.
        """
        if "cpu.max" in self._files:
            raise TestbedError("cgroups of version 2 limit whole processes only")
        for path in self._paths:
            (path / "tasks").write_text(str(thread))

    @property
    def pids(self) -> list[int]:
        """Every process in it."""
        return pids_in(self.path)

    @property
    def used_ms(self) -> float:
        """Processor time that its processes have had in it since it was set up."""
        path = self._paths[-1]
        if "cpu.max" in self._files:
            facts = dict(line.split() for line in (path / "cpu.stat").read_text().splitlines())
            return int(facts["usage_usec"]) / 1e3
        return int((path / "cpuacct.usage").read_text()) / 1e6


class Metronome:
    """Lets the kernel look at what runs on a core often; use it as a context.

    A process that goes before all others wakes there, and sleeps again: that takes a fiftieth of
    the core, and what is over its quota stops.

    Args:
        core: Where.
        period_s: How often.
    """

    def __init__(self, core: int, period_s: float = 0.001) -> None:
        self._program = BEAT.format(core=core, period_s=period_s)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen([sys.executable, "-c", self._program])
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def quota(cores: float, unified: bool) -> dict[str, str]:
    """What to write into which file of a cgroup, in that order.

    Args:
        cores: Processors' time, above 0.
        unified: Version 2 of cgroups, not 1.

    Raises:
        TestbedError: ``cores`` is not above 0.
    """
    if not cores > 0:
        raise TestbedError(f"a share must be above 0 cores, not {cores}")
    period_us = max(PERIOD_US, round(LEAST_QUOTA_US / cores))
    quota_us = max(LEAST_QUOTA_US, round(cores * period_us))
    if unified:
        return {"cpu.max": f"{quota_us} {period_us}"}
    return {"cpu.cfs_period_us": str(period_us), "cpu.cfs_quota_us": str(quota_us)}


def pids_in(path: Path) -> list[int]:
    """Every process in a cgroup."""
    return [int(line) for line in (path / "cgroup.procs").read_text().split()]


def remove_shares(root: Path = CGROUPS) -> list[str]:
    """End what runs in cgroups of the testbed, whoever made them, and remove them.

    Returns:
        Their names.
    """
    found = {path.name for folder in _controllers(root) for path in folder.glob(f"{PREFIX}*")}
    for folder in _controllers(root):
        for path in folder.glob(f"{PREFIX}*"):
            end_processes(pids_in(path))
            path.rmdir()
    return sorted(found)


def _controllers(root: Path) -> list[Path]:
    """Where cgroups limit the processor, and where they count its time, which may be elsewhere."""
    controller = cpu_controller(root)
    if controller is None:
        return []
    counting = root / "cpuacct"  # of version 1; version 2 has one place for all
    apart = controller != root and counting.is_dir() and not counting.samefile(controller)
    return [controller, counting] if apart else [controller]
