import os
import stat
import subprocess

import pytest

from deployments import flags as module
from deployments.flags import FAST, HEALTH, apply, flags, local_flags

CONFIG = """\
frontend prometheus
    bind :9101
frontend stats
    bind *:8404
frontend http
    bind 127.0.0.1:8000
    server replica 10.0.0.7:8404
"""


@pytest.fixture
def binary(tmp_path, monkeypatch):
    """A stand-in for HAProxy that tells its arguments, in a folder with a blank in its name."""
    path = tmp_path / "ray haproxy" / "haproxy"
    path.parent.mkdir()
    path.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    path.chmod(0o755)
    monkeypatch.setattr(module, "get_haproxy_binary", lambda: str(path))
    return path


@pytest.mark.parametrize("proxy", ["haproxy", "python"])
def test_every_flag_is_an_environment_variable(proxy):
    """Names are Ray's, values are strings, and both proxies share what makes Serve fast."""
    environment = flags(proxy)
    assert all(name.startswith("RAY_") for name in environment)
    assert all(isinstance(value, str) for value in environment.values())
    assert (FAST | HEALTH).items() <= environment.items()
    assert environment["RAY_SERVE_ENABLE_HA_PROXY"] == str(int(proxy == "haproxy"))


def test_haproxy_is_kept_on_loopback(binary, tmp_path):
    """The wrapper turns binds on all interfaces into binds on 127.0.0.1, then runs HAProxy."""
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG)
    wrapper = local_flags("haproxy", tmp_path)["RAY_SERVE_HAPROXY_BINARY_PATH"]
    arguments = ["-f", str(config), "-db", "two words"]
    ran = subprocess.run([wrapper, *arguments], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == arguments
    assert config.read_text() == CONFIG.replace("bind :9101", "bind 127.0.0.1:9101").replace(
        "bind *:8404", "bind 127.0.0.1:8404"
    )


def test_all_files_lie_in_the_clusters_folder(binary, tmp_path):
    """Two clusters on one machine share no configuration, socket or state."""
    paths = {
        name: value
        for name, value in local_flags("haproxy", tmp_path).items()
        if name.startswith("RAY_SERVE_HAPROXY_") and os.sep in value
    }
    assert len(paths) == 5
    assert all(value.startswith(str(tmp_path)) for value in paths.values())


def test_only_this_user_may_talk_to_the_cluster(tmp_path):
    """Ray's processes ask for a token; each cluster has its own, which no other user can read."""
    tokens = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        environment = local_flags("python", folder)
        assert environment["RAY_AUTH_MODE"] == "token"
        path = folder / "token"
        assert environment["RAY_AUTH_TOKEN_PATH"] == str(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        tokens.append(path.read_text())
    assert tokens[0] != tokens[1]
    assert min(map(len, tokens)) >= 32


def test_the_python_proxy_needs_no_binary(tmp_path, monkeypatch):
    """Where HAProxy is not installed, Serve's own proxy is still to be had."""

    def none():
        raise FileNotFoundError("no haproxy")

    monkeypatch.setattr(module, "get_haproxy_binary", none)
    assert local_flags("python", tmp_path)["RAY_SERVE_ENABLE_HA_PROXY"] == "0"
    with pytest.raises(FileNotFoundError):
        local_flags("haproxy", tmp_path)


def test_the_users_own_setting_wins(monkeypatch):
    """What is in the environment already stays; the rest is set."""
    monkeypatch.setenv("RAY_XPI_TEST_A", "mine")
    monkeypatch.setenv("RAY_XPI_TEST_B", "to be forgotten")
    monkeypatch.delenv("RAY_XPI_TEST_B")
    apply({"RAY_XPI_TEST_A": "ours", "RAY_XPI_TEST_B": "ours"})
    assert (os.environ["RAY_XPI_TEST_A"], os.environ["RAY_XPI_TEST_B"]) == ("mine", "ours")
