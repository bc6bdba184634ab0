import subprocess
import sys

import pytest

from benchmarks.hosts import TestbedError as Refused
from benchmarks.hosts import command, end_processes

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('ready', flush=True); time.sleep(60)"
)


def test_processes_are_ended_whether_they_want_to_or_not():
    """One goes when it is asked, one only when it is killed, and one went before."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with (
        subprocess.Popen(["sleep", "60"]) as willing,
        subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE) as stubborn,
    ):
        stubborn.stdout.readline()
        end_processes([willing.pid, stubborn.pid, gone.pid], grace_s=0.3)
        assert willing.wait(5) == -15
        assert stubborn.wait(5) == -9


def test_a_command_that_fails_tells_what_it_said():
    """The message has the command and its complaint; one that is not there is told as well."""
    with pytest.raises(Refused, match="failed: no such cable"):
        command("sh", "-c", "echo no such cable >&2; exit 3")
    with pytest.raises(Refused, match="no surely-not-there"):
        command("surely-not-there")


def test_a_command_gets_its_environment():
    """Beside that of this process."""
    assert command("sh", "-c", 'echo "$XPI_SAID"', environment={"XPI_SAID": "yes"}) == "yes\n"
