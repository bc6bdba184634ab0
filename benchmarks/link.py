"""The link between an edge and the cloud: `tc tbf` on both ends, so each direction has its rate.

    rates, traces ─► Link ─► tc ─► tbf on the edge's device (up) and on the cloud's (down)

Rates count Ethernet's frames with their headers; TCP's payload is at most 95.6 % of that.
"""

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from benchmarks.hosts import Host, TestbedError
from benchmarks.pacer import LEAST_BPS, STEP_S, Pacer, bucket_bytes
from xpi_ray.link.traces import Trace

QUEUE_BYTES = 150_000  # a hundred frames; what comes when it is full is lost
# A frame of the protocol for local experiments (IEEE 802), from and to nobody.
NUDGE = bytes(12) + b"\x88\xb5"


class End:
    """One direction: a device of the host that sends.

    Args:
        host: The sender.
        device: Its device.
    """

    def __init__(self, host: Host, device: str) -> None:
        self.host, self.device = host, device
        # One tc for all changes: starting one each time would take longer than the change.
        self._tc = subprocess.Popen(
            ["tc", "-n", host.namespace, "-force", "-batch", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._nudger = host.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._nudger.bind((device, 0))
        self.rate_bps: float | None = None

    def set_rate(self, rate_bps: float) -> None:
        """Carry so much from now on; what waits in the queue goes on waiting.

        Args:
            rate_bps: At least ``LEAST_BPS``, which stands for 0.
        """
        before_bps, self.rate_bps = self.rate_bps, rate_bps
        self._tell(
            f"replace dev {self.device} root handle 1: tbf rate {round(rate_bps)}bit "
            f"burst {bucket_bytes(rate_bps)} limit {QUEUE_BYTES}"
        )
        if before_bps is not None and rate_bps > before_bps:
            # tbf looks at its queue when a frame comes in or the time is up that it reckoned for
            # the next one, which was by the old rate.
            self._nudger.send(NUDGE)

    def cut(self) -> None:
        """Lose all that waits and all that comes, until ``mend``."""
        # Another handle makes another queue, and the old one is thrown away.
        self._tell(
            f"replace dev {self.device} root handle 2: tbf rate {round(LEAST_BPS)}bit "
            f"burst {bucket_bytes(LEAST_BPS)} limit 1"
        )

    def mend(self) -> None:
        """Carry again what it carried before the cut."""
        if self.rate_bps is None:
            self._tell(f"delete dev {self.device} root")
        else:
            self.set_rate(self.rate_bps)

    def close(self) -> None:
        """End what changes the rate, which stays as it is."""
        self._nudger.close()
        self._tc.communicate()

    def _tell(self, change: str) -> None:
        assert self._tc.stdin is not None
        assert self._tc.stdout is not None
        # In a batch tc tells errors only; what is asked for after the change says that it is made.
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self._tc.stdin.write(f"qdisc {change}\nqdisc show dev {self.device}\n")
            self._tc.stdin.flush()
        said = []
        for line in self._tc.stdout:
            if line.startswith("qdisc "):
                break
            said.append(line)
        else:
            said.append("tc has ended")
        if said:
            raise TestbedError(f"`tc qdisc {change}` failed: {''.join(said).strip()}")


class Link:
    """Both directions; as wide as the machine allows until it is told a rate.

    Args:
        edge: The end that sends up.
        cloud: The end that sends down.
    """

    def __init__(self, edge: End, cloud: End) -> None:
        self.up, self.down = edge, cloud
        self._change = threading.Lock()
        self._is_cut = False

    def set_rate(self, up_bps: float, down_bps: float | None = None) -> None:
        """Carry so much from now on, also after a cut.

        Args:
            up_bps: From the edge to the cloud; less than ``LEAST_BPS`` means nothing.
            down_bps: The other way; without it the same.
        """
        with self._change:
            rates_bps = (up_bps, up_bps if down_bps is None else down_bps)
            for end, rate_bps in zip((self.up, self.down), rates_bps, strict=True):
                rate_bps = max(rate_bps, LEAST_BPS)
                if self._is_cut:
                    end.rate_bps = rate_bps
                elif rate_bps != end.rate_bps:
                    end.set_rate(rate_bps)

    @contextlib.contextmanager
    def replay(self, up: Trace, down: Trace | None = None, start_s: float = 0.0) -> Iterator[None]:
        """Follow traces while the context lasts; the last rates stay.

        Args:
            up: From the edge to the cloud.
            down: The other way; without it the same.
            start_s: Where in the traces to begin.

        Raises:
            TestbedError: On exit: a change failed.
        """
        pacers = Pacer(up, start_s), Pacer(up if down is None else down, start_s)
        stop = threading.Event()
        self.set_rate(*(pacer.rate_bps(0.0) for pacer in pacers))
        begun_s = time.monotonic()

        def follow() -> None:
            steps = 1
            while not stop.wait(max(begun_s + steps * STEP_S - time.monotonic(), 0.0)):
                now_s = time.monotonic() - begun_s
                self.set_rate(*(pacer.rate_bps(now_s) for pacer in pacers))
                steps = int(now_s / STEP_S) + 1

        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(follow)
            try:
                yield
            finally:
                stop.set()
            following.result()

    def cut(self, seconds: float) -> None:
        """Pull the cable and put it back: nothing crosses, and what is sent meanwhile is lost.

        Args:
            seconds: How long; this call returns when they are over.
        """
        with self._change:
            self._is_cut = True
            for end in (self.up, self.down):
                end.cut()
        try:
            time.sleep(seconds)
        finally:
            with self._change:
                self._is_cut = False
                for end in (self.up, self.down):
                    end.mend()

    def close(self) -> None:
        """End what changes its rates; they stay."""
        self.up.close()
        self.down.close()
