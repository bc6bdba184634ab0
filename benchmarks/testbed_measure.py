"""Does the testbed do what it is told? The rows of `python -m benchmarks.testbed --measure`.

- ``rate``: TCP fills one direction while both follow a trace; the other carries acknowledgements.
  ``nominal_bps`` is the trace's mean over the measured seconds, ``measured_bps`` what came in as
  Ethernet's frames, ``error`` their ratio less 1, ``payload_bps`` TCP's payload. ``second_error``
  is how far each second's rate is off, in the mean, to the mean rate. Constant rates are measured
  so too, also through the relay, with the processor time that this took.
- ``round_trip``: small datagrams there and back, with delay and without; with loss, the share that
  came back.
- ``share``: a busy loop's processor time, and its longest pause.
- ``cut``: a pulled cable in mid-flow: what came through meanwhile, and when the flow went on.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import numpy as np

from benchmarks.hosts import Host
from benchmarks.link import Link
from benchmarks.probe import Flow, Moment, round_trips_ms, spin
from benchmarks.result import Row
from benchmarks.share import Share
from xpi_ray.link.traces import Trace

SECONDS = 15
LEAD_S = 2.0  # TCP finds its pace
CONSTANT_MBPS = (1.0, 8.0, 100.0)
PINGS = 300
CORES = (0.1, 0.25, 0.5, 1.0)
SPIN_S = 5.0
CUT_S = 5.0
CUT_MBPS = 8.0
LOOK_S = 0.05  # how often a flow after a cut is looked at
PATIENCE_S = 30.0


def constant(mbps: float) -> Trace:
    """A link that is always the same."""
    return Trace(f"constant {mbps:g} Mbit/s", 1.0, np.array([1e6 * mbps]))


def rates(link: Link, traces: Sequence[Trace], seconds: int) -> Iterator[Row]:
    """Nominal against measured, each direction of each trace."""
    for trace in traces:
        for direction in ("up", "down"):
            ends = (link.up, link.down) if direction == "up" else (link.down, link.up)
            with link.replay(trace):
                begun_s = time.monotonic()
                with Flow(ends[0].host, ends[1].host, ends[1].device) as flow:
                    time.sleep(LEAD_S)
                    moments = [flow.now()]
                    for second in range(1, seconds + 1):
                        time.sleep(max(moments[0].time_s + second - time.monotonic(), 0))
                        moments.append(flow.now())
            yield {
                "measure": "rate",
                "trace": trace.name,
                "direction": direction,
                **_compare(trace, begun_s, moments),
            }


def _compare(trace: Trace, begun_s: float, moments: Sequence[Moment]) -> Row:
    """What came against what the trace says; it began at ``begun_s``."""
    came, due = [], []
    for last, now in pairwise(moments):
        came.append(8 * (now.frames_bytes - last.frames_bytes) / (now.time_s - last.time_s))
        due.append(trace.mean_bps(last.time_s - begun_s, now.time_s - begun_s))
    first, last = moments[0], moments[-1]
    taken_s = last.time_s - first.time_s
    nominal_bps = trace.mean_bps(first.time_s - begun_s, last.time_s - begun_s)
    measured_bps = 8 * (last.frames_bytes - first.frames_bytes) / taken_s
    off = [abs(one - other) for one, other in zip(came, due, strict=True)]
    return {
        "nominal_bps": round(nominal_bps),
        "measured_bps": round(measured_bps),
        "error": round(measured_bps / nominal_bps - 1, 4),
        "second_error": round(fmean(off) / nominal_bps, 4),
        "payload_bps": round(8 * (last.payload_bytes - first.payload_bytes) / taken_s),
    }


def relayed(link: Link, relay: Host, one_way_ms: float, seconds: int) -> Iterator[Row]:
    """Constant rates through the relay, and what share of a core that takes."""
    (pid,) = relay.pids()
    for mbps in CONSTANT_MBPS:
        spent_s, begun_s = _processor_s(pid), time.monotonic()
        rows = list(rates(link, [constant(mbps)], seconds))
        cores = (_processor_s(pid) - spent_s) / (time.monotonic() - begun_s)
        for row in rows:
            yield {**row, "one_way_ms": one_way_ms, "relay_cores": round(cores, 3)}


def _processor_s(pid: int) -> float:
    """The processor time that a process has had."""
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def round_trip(link: Link, one_way_ms: float, loss: float) -> Row:
    """Of small datagrams on an idle link."""
    taken_ms = np.array(list(round_trips_ms(link.up.host, link.down.host, PINGS)))
    return {
        "measure": "round_trip",
        "one_way_ms": one_way_ms,
        "loss": loss,
        "p50_ms": round(float(np.median(taken_ms)), 3),
        "p95_ms": round(float(np.quantile(taken_ms, 0.95)), 3),
        "came_back": round(len(taken_ms) / PINGS, 4),
    }


def shares(host: Host) -> Iterator[Row]:
    """Set against measured."""
    for cores in CORES:
        with Share("measured", cores) as share:
            measured, pause_ms = spin(host, share, SPIN_S)
        yield {
            "measure": "share",
            "cores": cores,
            "measured_cores": round(measured, 4),
            "error": round(measured / cores - 1, 4),
            "longest_pause_ms": round(pause_ms, 1),
        }


def cut(link: Link) -> Row:
    """Pull the cable for ``CUT_S`` while TCP fills the link."""
    link.set_rate(1e6 * CUT_MBPS)
    with Flow(link.up.host, link.down.host, link.down.device) as flow:
        time.sleep(LEAD_S)
        pulling = threading.Thread(target=link.cut, args=(CUT_S,))
        pulling.start()
        time.sleep(CUT_S / 10)
        before = flow.now()
        time.sleep(CUT_S * 8 / 10)
        crossed = flow.now().frames_bytes - before.frames_bytes
        pulling.join()
        mended = flow.now()
        while (now := flow.now()).payload_bytes == mended.payload_bytes:
            if now.time_s > mended.time_s + PATIENCE_S:
                break
            time.sleep(LOOK_S)
    return {
        "measure": "cut",
        "seconds": CUT_S,
        "crossed_bytes": crossed,
        "resumed_after_s": round(now.time_s - mended.time_s, 2),
    }
