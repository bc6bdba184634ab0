import pytest

from benchmarks import comparison_tables as tables


def test_figures_are_means_with_the_deviation_over_seeds(make_rows):
    """Of each seed the mean over loads; Xpi comes first, whatever came first in the rows."""
    head, xpi, other = tables.figure4(make_rows())
    assert (xpi[0], xpi[1], other[1]) == ("CIFAR-10", "Xpi", "edge only")
    assert xpi[head.index("in time, %")] == "92.5 ± 0.0"
    assert xpi[head.index("accuracy of these, %")] == "85.0 ± 7.1"


def test_each_load_has_its_column(make_rows):
    """With what is in time there, and how accurate."""
    head, xpi, _ = tables.figure4_loads(make_rows())
    assert head[2:] == ["load 0.5: in time, accuracy, %", "load 1: in time, accuracy, %"]
    assert xpi[2] == "95.0 ± 0.0, 85.0 ± 7.1"


def test_a_part_stands_beside_the_whole(make_rows):
    """What it brings is the difference in right answers in time."""
    whole = make_rows(without="nothing")
    rows = whole + make_rows(without="early_exit", right_in_time=0.65)
    table = tables.ablation(rows)
    assert [row[1] for row in table[1:]] == ["nothing", "early exit"]
    column = table[0].index("to Xpi, points")
    assert [row[column] for row in table[1:]] == ["", "-5.0"]


def test_capacity_is_told_relative_to_xpi():
    """Where Xpi was measured."""
    row = {"dataset": "cifar10", "requests_per_s_at_95": 4.0}
    rows = [{**row, "system": "xpi", "to_xpi": 1.0}, {**row, "system": "spinn"}]
    assert [line[2:] for line in tables.capacity(rows)[1:]] == [["4.00", "1.00"], ["4.00", ""]]


def test_a_pull_has_its_three_phases(make_rows):
    """And the time until all is as before."""
    rows = [
        row
        for phase in tables.PHASES
        for row in make_rows(phase=phase, **({"recovery_s": 2.0} if phase == "after" else {}))
    ]
    head, xpi, _ = tables.cable_pull(rows)
    assert xpi[2:5] == ["92.5 ± 0.0"] * 3
    assert xpi[head.index("normal again after, s")] == "2.0 ± 0.0"


@pytest.mark.parametrize(("simulated", "near"), [(0.92, True), (0.86, False)])
def test_a_prediction_is_near_within_three_points_and_a_tenth(simulated, near):
    """Satisfaction and the median are judged apart."""
    row = {
        "system": "xpi",
        "dataset": "cifar10",
        "simulated_satisfaction": simulated,
        "measured_satisfaction": 0.9,
        "simulated_p50_ms": 108.0,
        "measured_p50_ms": 100.0,
    }
    assert tables.satisfaction_is_near(row) is near
    assert tables.latency_is_near(row)
    assert tables.figure4_simulated([row])[1][-2:] == [f"{int(near)} of 1", "1 of 1"]


def test_goals_are_judged_against_the_best_peer(make_rows):
    """Xpi is first in time, ties in accuracy, and no peer is as often in time."""
    met = {row[2]: row[-1] for row in tables.figure4_goals(make_rows())[1:]}
    assert list(met.values()) == ["no", "yes", "no", "yes", "yes"]
    alone = [row for row in make_rows() if row["system"] == "xpi"]
    assert len(tables.figure4_goals(alone)) == 1
