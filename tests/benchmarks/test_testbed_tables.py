from benchmarks import testbed_tables as tables

RATE = {
    "measure": "rate",
    "trace": "constant",
    "direction": "up",
    "nominal_bps": 2e6,
    "measured_bps": 1.9e6,
    "error": -0.05,
    "second_error": 0.06,
    "payload_bps": 1.8e6,
}
SHARE = {
    "measure": "share",
    "cores": 0.25,
    "measured_cores": 0.24,
    "error": -0.04,
    "longest_pause_ms": 7.52,
}
ROUND_TRIP = {
    "measure": "round_trip",
    "one_way_ms": 5.0,
    "loss": 0.01,
    "p50_ms": 10.2,
    "p95_ms": 10.5,
    "came_back": 0.98,
}


def test_each_measure_has_its_own_table():
    """Rows of the others are not in it; a link without the relay has no delay."""
    rows = [RATE, SHARE, ROUND_TRIP, {**RATE, "one_way_ms": 20.0}]
    straight, relayed = tables.testbed_rates(rows)[1:]
    shown = ["constant", "up", "0", "2.000", "1.900", "-5.0%", "6.0%", "1.800"]
    assert straight == shown
    assert relayed == [*shown[:2], "20", *shown[3:]]
    assert tables.testbed_shares(rows)[1:] == [["0.25", "0.2400", "-4.0%", "7.5"]]
    assert tables.testbed_round_trips(rows)[1:] == [["5", "1%", "10.20", "10.50", "98.0%"]]


def test_a_call_is_shown_beside_what_its_bits_and_the_delay_take():
    """A column for each rate; one that was not measured is empty."""
    row = {"one_way_ms": 5.0, "payload_bytes": 1000, "mbps": 8.0, "sending_ms": 1.0, "p50_ms": 14.0}
    rows = [row, {**row, "payload_bytes": 10_000, "mbps": 1.0, "sending_ms": 80.0, "p50_ms": 92.5}]
    head, small, large = tables.handle_calls(rows)
    assert head[2:] == ["8 Mbit/s", "1 Mbit/s"]
    assert small == ["5", "1,000", "14.0 ms (+3.0)", ""]
    assert large == ["5", "10,000", "", "92.5 ms (+2.5)"]
