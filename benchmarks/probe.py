"""Measures what hosts and links of the testbed do: rate, round trip, share of the processor.

Host.socket, twice ─► Flow: TCP as fast as it goes ─► bytes
                  └─► round_trips_ms: datagrams, one after the other
Share ─► spin: a busy loop in it ─► its processor time, its longest pause
"""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple, Self

from benchmarks.hosts import Host
from benchmarks.share import Share

CHUNK = bytes(1 << 16)
PING = bytes(20)
PATIENCE_S = 1.0
# Prints the processor time it had, in cores, and its longest pause in ms.
SPIN = """
import json, sys, time
sys.stdin.readline()
begun_s = last_s = time.perf_counter()
spent_s, pause_s = time.process_time(), 0.0
while last_s - begun_s < {seconds}:
    now_s = time.perf_counter()
    pause_s = max(pause_s, now_s - last_s)
    last_s = now_s
print(json.dumps([(time.process_time() - spent_s) / (last_s - begun_s), 1000 * pause_s]))
"""


class Moment(NamedTuple):
    """How far a flow has come."""

    time_s: float
    """Of ``time.monotonic``."""
    frames_bytes: int
    """All that came in by the device, with headers."""
    payload_bytes: int
    """TCP's payload that the receiver has read."""


class Flow:
    """TCP from one host to another, as fast as it goes, while the context lasts.

    Args:
        source: Who sends.
        target: Who receives.
        device: Of the target, by which it comes in.
    """

    def __init__(self, source: Host, target: Host, device: str) -> None:
        self._target, self._device = target, device
        self._received = 0
        with target.socket() as listener:
            listener.bind((target.address, 0))
            listener.listen()
            self._sender = source.socket()
            self._sender.connect(listener.getsockname())
            self._receiver, _ = listener.accept()
        self._threads = [threading.Thread(target=work) for work in (self._send, self._receive)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self._sender, self._receiver):
            with contextlib.suppress(OSError):  # the other end was quicker
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._sender.close()
        self._receiver.close()

    def now(self) -> Moment:
        """How far it is."""
        return Moment(time.monotonic(), self._target.received_bytes(self._device), self._received)

    def _send(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._sender.sendall(CHUNK)

    def _receive(self) -> None:
        room = bytearray(1 << 18)
        with contextlib.suppress(OSError):
            while size := self._receiver.recv_into(room):
                self._received += size


def round_trips_ms(near: Host, far: Host, count: int) -> Iterator[float]:
    """Send a small datagram there and back, ``count`` times; one that is lost is left out."""
    with (
        near.socket(kind=socket.SOCK_DGRAM) as here,
        far.socket(kind=socket.SOCK_DGRAM) as there,
    ):
        for end, host in ((here, near), (there, far)):
            end.bind((host.address, 0))
            end.settimeout(PATIENCE_S)
        for _ in range(count):
            begun_s = time.perf_counter()
            with contextlib.suppress(TimeoutError):
                here.sendto(PING, there.getsockname())
                _, back = there.recvfrom(len(PING))
                there.sendto(PING, back)
                here.recvfrom(len(PING))
                yield 1000 * (time.perf_counter() - begun_s)


def spin(host: Host, share: Share, seconds: float) -> tuple[float, float]:
    """Run a busy loop on a host, in a share.

    Returns:
        The processor time that it had, in cores, and its longest pause, in ms.
    """
    program = SPIN.format(seconds=seconds)
    with host.popen(
        sys.executable, "-c", program, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        share.add(process.pid)
        said, _ = process.communicate("go\n")
    cores, pause_ms = json.loads(said)
    return float(cores), float(pause_ms)
