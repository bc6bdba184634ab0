"""Delay and loss on a link of the testbed, in user space, since not every kernel has `netem`.

    edge ═veth═► relay's namespace: Wire ═veth═► cloud, and back

    python -m benchmarks.relay EDGE_DEVICE CLOUD_DEVICE --one-way-ms 20 --loss 0.01 --seed 0

Every frame that comes in by one device leaves by the other after the delay, in order, unless it
is lost. Rates are none of its business: `tc` holds the hosts to theirs. It imports nothing but
Python's own modules, so that it starts at once.
"""

import argparse
import os
import random
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator

QUEUE_BYTES = 64 << 20  # a second at half a gigabit a second; beyond it frames are lost
BUFFER_BYTES = 16 << 20  # what the kernel keeps while the relay does something else
LARGEST = 1 << 17  # the kernel hands on up to 64 KiB as one frame until it meets a `tbf`
TURN = 64  # frames taken from one side before the other has its turn
# linux/if_packet.h
SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23
ETH_P_ALL = 0x0003
SO_RCVBUFFORCE = 33


class Wire:
    """Frames under way in one direction.

    Args:
        delay_s: How long each takes, at least 0.
        loss: The share that does not arrive, 0..1.
        chance: Gives numbers from 0 to below 1.
        limit_bytes: Most that is under way; what comes beyond it is lost.
    """

    def __init__(
        self,
        delay_s: float,
        loss: float,
        chance: Callable[[], float],
        limit_bytes: int = QUEUE_BYTES,
    ) -> None:
        self._delay_s, self._loss, self._chance = delay_s, loss, chance
        self._free_bytes = limit_bytes
        self._frames: deque[tuple[float, bytes]] = deque()

    def put(self, now_s: float, frame: bytes) -> None:
        """Take a frame that came in now; times never fall."""
        if len(frame) <= self._free_bytes and self._chance() >= self._loss:
            self._free_bytes -= len(frame)
            self._frames.append((now_s + self._delay_s, frame))

    def due(self, now_s: float) -> Iterator[bytes]:
        """Hand out those that arrive by now, in order."""
        while self._frames and self._frames[0][0] <= now_s:
            _, frame = self._frames.popleft()
            self._free_bytes += len(frame)
            yield frame

    @property
    def next_s(self) -> float:
        """When the next one arrives; infinite if none is under way."""
        return self._frames[0][0] if self._frames else float("inf")


def main() -> None:
    """Relay until told to end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("devices", nargs=2)
    parser.add_argument("--one-way-ms", type=float, required=True)
    parser.add_argument("--loss", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: exit(0))
    # A link does not wait for the hosts' processors.
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    chance = random.Random(options.seed).random
    sockets = [_open(device) for device in options.devices]
    wires = [Wire(options.one_way_ms / 1000, options.loss, chance) for _ in sockets]
    print("ready", flush=True)
    relay(sockets, wires)


def relay(sockets: list[socket.socket], wires: list[Wire]) -> None:
    """Carry what comes in by either of two sockets to the other, by its wire, for ever."""
    ways = list(zip(sockets, wires, reversed(sockets), strict=True))
    room = memoryview(bytearray(LARGEST))
    while True:
        wait_s = min(wire.next_s for wire in wires) - time.monotonic()
        select.select(sockets, [], [], None if wait_s == float("inf") else max(wait_s, 0.0))
        for source, wire, target in ways:
            for _ in range(TURN):
                try:
                    size = source.recv_into(room)
                except BlockingIOError:
                    break
                wire.put(time.monotonic(), bytes(room[:size]))
            for frame in wire.due(time.monotonic()):
                try:
                    target.send(frame)
                except OSError:  # the device's own queue is full, or it is down: lost as well
                    continue


def _open(device: str) -> socket.socket:
    """All that comes in by a device, and the way out by it."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    # With the kernel's own header each frame keeps what is still to be done to it: to fill in a
    # checksum, to be cut into frames of the link's size.
    opened.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    opened.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    opened.bind((device, ETH_P_ALL))
    opened.setblocking(False)
    return opened


if __name__ == "__main__":
    main()
