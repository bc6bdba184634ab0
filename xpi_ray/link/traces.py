"""Measured links: how many bits one could carry, moment by moment.

file ─► read ─► Trace ─► simulated link

Two forms of file are read. Mahimahi's (Netravali et al., USENIX ATC'15): an integer a line, the
millisecond at which the link could deliver one packet of 1500 bytes. The other holds
``second Mbit/s`` a line. Like mahimahi, a trace begins anew where it ends.
"""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xpi_ray.errors import DataError

PACKET_BITS = 8 * 1500
MAX_DURATION_S = 7 * 86_400
MAX_FILE_BYTES = 64 * 2**20
MAHIMAHI_SUFFIXES = (".up", ".down")


class Trace:
    """Capacity over time: constant within a step, and periodic.

    Args:
        name: Whence it came.
        step_s: Length of a step, seconds.
        bits: What each step could carry, (n,), not negative and not all zero.

    Raises:
        DataError: No step carries anything, or a value is negative or not finite.
    """

    def __init__(self, name: str, step_s: float, bits: NDArray[np.float64]) -> None:
        if not (np.isfinite(bits).all() and (bits >= 0).all() and bits.any()):
            raise DataError(
                f"the trace {name} must carry something, and finite amounts of it; check the file"
            )
        self.name = name
        self.step_s = step_s
        self.carried = np.concatenate([[0.0], np.cumsum(bits)])
        """Bits from 0 until the end of each step, (n + 1,)."""

    @property
    def duration_s(self) -> float:
        """Time after which it begins anew."""
        return self.step_s * (len(self.carried) - 1)

    def scaled(self, factor: float) -> "Trace":
        """The same link with ``factor`` times the capacity."""
        return Trace(self.name, self.step_s, factor * np.diff(self.carried))

    def mean_bps(self, start_s: float, end_s: float) -> float:
        """Mean capacity from ``start_s`` (at least 0) until ``end_s``, bit/s."""
        carried = self._carried_by(end_s) - self._carried_by(start_s)
        return carried / (end_s - start_s)

    def delivered_s(self, start_s: float, size_bytes: float) -> float:
        """When the last bit is through, if the link has nothing else to do from ``start_s`` on."""
        return delivered_s(self.carried, self.step_s, start_s, size_bytes)

    def _carried_by(self, time_s: float) -> float:
        """Bits from 0 until ``time_s``."""
        return carried_by(self.carried, self.step_s, time_s)


def carried_by(carried: NDArray[np.float64], step_s: float, time_s: float) -> float:
    """Bits from 0 until ``time_s``.

    Args:
        carried: Bits until the end of each step, from 0 on, (n + 1,).
        step_s: Length of a step.
        time_s: At least 0; may lie beyond the trace's end.
    """
    rounds, rest_s = divmod(time_s, step_s * (len(carried) - 1))
    step = min(int(rest_s / step_s), len(carried) - 2)
    part = (carried[step + 1] - carried[step]) * (rest_s / step_s - step)
    return float(rounds * carried[-1] + carried[step] + part)


def delivered_s(
    carried: NDArray[np.float64], step_s: float, start_s: float, size_bytes: float
) -> float:
    """When the last bit is through; see ``Trace.delivered_s`` and ``carried_by``."""
    rounds, bits = divmod(carried_by(carried, step_s, start_s) + 8 * size_bytes, carried[-1])
    step = max(int(np.searchsorted(carried, bits)) - 1, 0)
    within = (bits - carried[step]) / (carried[step + 1] - carried[step]) if bits else 0.0
    end_s = rounds * step_s * (len(carried) - 1) + (step + within) * step_s
    return float(max(start_s, end_s))


def read(path: Path) -> Trace:
    """Read a trace; mahimahi's by its suffix, ``.up`` or ``.down``.

    Raises:
        DataError: The file is missing, too large or of neither form.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path} is larger than {MAX_FILE_BYTES} bytes, too large for a trace")
        lines = path.read_text().split("\n")
        columns = np.array([line.split() for line in lines if line.strip()], dtype=np.float64)
    except (OSError, ValueError) as err:
        raise DataError(f"{path} is no readable trace: {err}") from err
    mahimahi = path.suffix in MAHIMAHI_SUFFIXES
    if columns.ndim != 2 or columns.shape[1] != (1 if mahimahi else 2):
        form = "a millisecond" if mahimahi else "second and Mbit/s"
        raise DataError(f"{path} must hold {form} a line; other suffixes mean other forms")
    times_s = columns[:, 0] / (1000 if mahimahi else 1)
    if not (times_s[0] >= 0 and times_s[-1] <= MAX_DURATION_S and (np.diff(times_s) >= 0).all()):
        raise DataError(f"times in {path} must not fall, from 0 up to {MAX_DURATION_S} s")
    if mahimahi:
        packets = np.bincount(columns[:, 0].astype(np.int64))
        return Trace(path.name, 1e-3, PACKET_BITS * packets.astype(np.float64))
    return Trace(path.name, 1.0, 1e6 * columns[:, 1])


def trace_folder() -> Path | None:
    """``$XPI_TRACES_DIR``, or without that variable ``../shared/traces``; None where it is not."""
    folder = Path(os.environ.get("XPI_TRACES_DIR") or Path("..") / "shared" / "traces")
    return folder if folder.is_dir() else None
