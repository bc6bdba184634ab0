"""Tables of the testbed itself: what was set beside what was measured, and what calls take there.

benchmarks/results/*.json ─► rows ─► testbed_tables ─► benchmarks.tables, benchmarks.report
"""

from collections.abc import Callable

from benchmarks.result import Rows
from benchmarks.summary import grouped


def testbed_rates(rows: Rows) -> list[list[str]]:
    """Nominal against measured rate, by link and direction; through the relay where it delays."""
    table = [["link", "direction", "delay each way, ms", "set, Mbit/s", "measured", "error"]]
    table[0] += ["error of single seconds", "TCP's payload, Mbit/s"]
    for row in _of(rows, "rate"):
        rates = [f"{float(row[f'{key}_bps']) / 1e6:.3f}" for key in ("nominal", "measured")]
        delay = f"{float(row.get('one_way_ms', 0.0)):g}"
        cells = [str(row["trace"]), str(row["direction"]), delay, *rates]
        errors = [f"{float(row['error']):+.1%}", f"{float(row['second_error']):.1%}"]
        table.append([*cells, *errors, f"{float(row['payload_bps']) / 1e6:.3f}"])
    return table


def testbed_shares(rows: Rows) -> list[list[str]]:
    """A busy loop's share of a processor."""
    table = [["set, cores", "measured", "error", "longest pause, ms"]]
    for row in _of(rows, "share"):
        cells = [f"{float(row['cores']):g}", f"{float(row['measured_cores']):.4f}"]
        pause = f"{float(row['longest_pause_ms']):.1f}"
        table.append([*cells, f"{float(row['error']):+.1%}", pause])
    return table


def testbed_round_trips(rows: Rows) -> list[list[str]]:
    """Small datagrams there and back."""
    table = [["delay each way, ms", "loss each way", "p50, ms", "p95, ms", "came back"]]
    for row in _of(rows, "round_trip"):
        cells = [f"{float(row['one_way_ms']):g}", f"{float(row['loss']):.0%}"]
        times = [f"{float(row[key]):.2f}" for key in ("p50_ms", "p95_ms")]
        table.append([*cells, *times, f"{float(row['came_back']):.1%}"])
    return table


def handle_calls(rows: Rows) -> list[list[str]]:
    """Median time of a call by payload, and what it is beside the payload's bits and the delay."""
    rates = list(dict.fromkeys(float(row["mbps"]) for row in rows))
    table = [["delay each way, ms", "payload, bytes", *(f"{rate:g} Mbit/s" for rate in rates)]]
    for (delay, size), own in grouped(rows, "one_way_ms", "payload_bytes").items():
        by_rate = {float(row["mbps"]): row for row in own}
        cells = [_call(by_rate[rate]) if rate in by_rate else "" for rate in rates]
        table.append([f"{float(delay):g}", f"{int(size):,}", *cells])
    return table


def _call(row: dict[str, float | int | str]) -> str:
    beside_ms = float(row["p50_ms"]) - float(row["sending_ms"]) - 2 * float(row["one_way_ms"])
    return f"{float(row['p50_ms']):.1f} ms ({beside_ms:+.1f})"


def _of(rows: Rows, measure: str) -> Rows:
    return [row for row in rows if row["measure"] == measure]


TESTBED: dict[str, Callable[[Rows], list[list[str]]]] = {
    "testbed_rates": testbed_rates,
    "testbed_shares": testbed_shares,
    "testbed_round_trips": testbed_round_trips,
    "handle_calls": handle_calls,
}
"""By the name of the table."""
SOURCES = dict.fromkeys(("testbed_rates", "testbed_shares", "testbed_round_trips"), "testbed")
"""The result that a table is made of, where it has another name."""
