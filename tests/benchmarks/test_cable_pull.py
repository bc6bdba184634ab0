import pytest

from benchmarks import cable_pull
from benchmarks.campaign import read

CUTS_S = [12.0, 37.0]


@pytest.fixture(scope="module")
def rows(tmp_path_factory, write_run, make_record_line):
    """Ten requests a second; while the cable is out, and 3 s longer, none is answered in time."""
    lines = []
    for number in range(620):
        due_s = number / 10
        out = any(0 <= due_s - cut_s < 8 for cut_s in CUTS_S)
        changes = {"latency_ms": 300.0, "status": "best_effort"} if out else {}
        lines.append(make_record_line(due_s, **changes))
    folder = tmp_path_factory.mktemp("run")
    facts = {"warm_up_s": 2.0, "duration_s": 60.0, "cuts_s": CUTS_S}
    run = read(write_run(folder, lines, **facts))
    return {row["phase"]: row for row in cable_pull.judge(run)}


def test_phases_are_told_apart(rows):
    """Ten calm seconds, two pulls of five, and what comes after each."""
    assert {phase: row["requests"] for phase, row in rows.items()} == {
        "before": 100,
        "during": 100,
        "after": 400,
    }
    assert rows["before"]["deadline_satisfaction"] == 1.0
    assert rows["during"]["deadline_satisfaction"] == 0.0
    assert rows["during"]["best_effort_share"] == 1.0


def test_time_to_normal_begins_when_the_cable_is_back(rows):
    """Three seconds of lateness, less what a window may hold of it."""
    assert rows["after"]["recovery_s"] == pytest.approx(3.0, abs=0.4)


def test_pulls_leave_time_between():
    """The first has a calm phase before it, and the last one time after it."""
    pulls_s = cable_pull.pulls_s()
    assert len(pulls_s) == cable_pull.PULLS
    assert pulls_s[0] == cable_pull.WARM_UP_S + cable_pull.CALM_S
    assert pulls_s[1] - pulls_s[0] == cable_pull.CUT_S + cable_pull.BETWEEN_S
