import json
import os
import socket
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from deployments import doctor
from deployments.doctor import Row
from xpi_ray import bundle


@pytest.fixture
def run():
    """Run `xpi doctor` with arguments."""
    app = typer.Typer()
    app.command()(doctor.doctor)
    return lambda *args: CliRunner().invoke(app, list(args))


def test_every_check_of_this_machine_is_a_row(run):
    """The report has each check once, advice wherever something is amiss, and 1 if it is needed."""
    result = run("--json")
    rows = [Row(**row) for row in json.loads(result.stdout)]
    assert [row.check for row in rows] == list(doctor.CHECKS)
    assert all(bool(row.advice) == (row.status != "ok") for row in rows)
    assert all(row.found for row in rows)
    assert result.exit_code == int(any(row.status == "missing" for row in rows))
    by_check = {row.check: row for row in rows}
    assert {by_check[name].status for name in ("python", "torch", "ray", "haproxy")} == {"ok"}


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warn", 0), ("missing", 1)])
def test_only_what_is_missing_fails(run, monkeypatch, status, code):
    """The exit code is 1 for what `xpi serve` needs, and 0 for what only helps."""
    monkeypatch.setattr(doctor, "CHECKS", {"it": lambda: Row("it", status, "this", "do that")})
    result = run()
    assert result.exit_code == code
    assert all(word in result.stdout for word in ("it", status, "this", "do that"))


def test_a_check_that_breaks_is_a_row(run, monkeypatch):
    """A package that cannot be imported is reported, not raised."""

    def import_module(name):
        raise ImportError(f"no {name}")

    monkeypatch.setattr(doctor, "import_module", import_module)
    result = run("--json")
    broken = {row["check"] for row in json.loads(result.stdout) if "ImportError" in row["found"]}
    assert broken == {"torch", "ray", "bundle", "data"}
    assert result.exit_code == 1


def test_a_busy_port_is_named(monkeypatch):
    """A port that another process listens on is missing, and free again once that ends."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setattr(doctor, "PORTS", {port: "HTTP"})
        row = doctor.check_ports()
        assert row.status == "missing"
        assert f"{port} (HTTP)" in row.found
    assert doctor.check_ports().status == "ok"


@pytest.mark.parametrize(("version", "status"), [("3.10.14", "missing"), ("3.14.0rc1", "ok")])
def test_an_old_python_is_missing(monkeypatch, version, status):
    """Python must be 3.11 or newer."""
    monkeypatch.setattr(doctor.platform, "python_version", lambda: version)
    assert doctor.check_python().status == status


def test_an_haproxy_that_does_not_run_is_missing(monkeypatch, tmp_path):
    """A binary that is named but is not there, or fails, does not count as one."""
    binary = tmp_path / "haproxy"
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", str(binary))
    assert doctor.check_haproxy().status == "missing"
    binary.write_text("#!/bin/sh\nexit 1\n")
    binary.chmod(0o755)
    assert doctor.check_haproxy().status == "missing"
    binary.write_text("#!/bin/sh\necho 'HAProxy version 9 - https://haproxy.org/'\n")
    assert doctor.check_haproxy() == Row("haproxy", "ok", f"HAProxy version 9, {binary}")


@pytest.mark.parametrize(
    ("meminfo", "status", "found"),
    [
        ("MemTotal: 9 kB\nMemAvailable: 8388608 kB\n", "ok", "8.0 GiB free"),
        ("MemAvailable: 1048576 kB\n", "warn", "1.0 GiB free"),
        ("MemTotal: 8388608 kB\n", "warn", "unknown"),
    ],
)
def test_memory_is_what_is_available(monkeypatch, tmp_path, meminfo, status, found):
    """The kernel's estimate of available memory counts, not the total."""
    (tmp_path / "meminfo").write_text(meminfo)
    monkeypatch.setattr(doctor, "PROC", tmp_path)
    assert doctor.check_memory()[1:3] == (status, found)


def test_a_missing_bundle_says_so(monkeypatch, tmp_path):
    """Without the default bundle nothing can be served."""
    monkeypatch.setattr(bundle, "PACKAGED", tmp_path)
    monkeypatch.chdir(tmp_path)
    row = doctor.check_bundle()
    assert row.status == "missing"
    assert "not a bundle" in row.found


def test_another_cluster_is_found_by_its_head(monkeypatch, tmp_path):
    """A running GCS means another Ray cluster, which is a warning."""
    for number, name in {"7": "python3", "42": "gcs_server"}.items():
        (tmp_path / number).mkdir()
        (tmp_path / number / "comm").write_text(name + "\n")
    monkeypatch.setattr(doctor, "PROC", tmp_path)
    row = doctor.check_other_ray()
    assert row.status == "warn"
    assert "process 42" in row.found


@pytest.fixture
def able(monkeypatch, tmp_path):
    """A machine that can host the testbed, as far as the check can see; its trial is ``sh -c``."""
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu\n")
    unshare = tmp_path / "unshare"
    unshare.write_text('#!/bin/sh\nshift\nexec "$@"\n')
    unshare.chmod(0o755)
    monkeypatch.setattr(doctor, "CGROUPS", tmp_path)
    monkeypatch.setattr(doctor, "TESTBED_TOOLS", ("sh",))
    monkeypatch.setattr(doctor, "TESTBED_TRIAL", "true")
    monkeypatch.setattr(doctor.os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_a_machine_can_host_the_testbed(able):
    """Root, tools, cgroups and a trial that works are all that it takes."""
    row = doctor.check_testbed()
    assert (row.status, row.advice) == ("ok", "")
    assert "version 2" in row.found


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("TESTBED_TOOLS", ("sh", "surely-not-there"), "no surely-not-there"),
        ("TESTBED_TRIAL", "echo no such qdisc >&2; exit 2", "no such qdisc"),
        ("TESTBED_TRIAL", "exit 2", "refused"),
        ("CGROUPS", Path("/surely/not/there"), "no cgroups"),
    ],
)
def test_what_the_testbed_lacks_is_named(able, monkeypatch, name, value, found):
    """It is a warning, since only benchmarks need the testbed."""
    monkeypatch.setattr(doctor, name, value)
    row = doctor.check_testbed()
    assert row.status == "warn"
    assert found in row.found
    assert "benchmarks/testbed.py" in row.advice


def test_the_testbed_needs_root(able, monkeypatch):
    """Nothing is tried without it."""
    monkeypatch.setattr(doctor.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(doctor, "TESTBED_TRIAL", "kill $$")
    assert doctor.check_testbed()[1:3] == ("warn", "needs root")


def test_the_processors_controller_is_found_in_both_versions(tmp_path):
    """Version 1 has a folder for each controller, version 2 a list of them; without one, None."""
    assert doctor.cpu_controller(tmp_path) is None
    (tmp_path / "cgroup.controllers").write_text("cpuset memory\n")
    assert doctor.cpu_controller(tmp_path) is None
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu memory\n")
    assert doctor.cpu_controller(tmp_path) == tmp_path
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert doctor.cpu_controller(tmp_path) == tmp_path / "cpu"
