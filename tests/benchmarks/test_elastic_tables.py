from benchmarks import elastic_tables


def test_plans_are_rows_and_networks_columns():
    """Accuracies are in percent over seeds; a plan that nobody ran has no row."""
    rows = [
        {"dataset": "mnist", "network": "tiny", "seed": seed, "plan": plan, "accuracy": accuracy}
        for plan, pair in {"planner": (0.5, 0.52), "single_exit": (0.4, 0.4)}.items()
        for seed, accuracy in enumerate(pair)
    ]
    head, planner, single, seeds = elastic_tables.elastic_inference(rows)
    assert head == ["which exits run", "tiny, mnist"]
    assert planner == ["exact planner", "51.00 ± 1.41"]
    assert single == ["last exit alone", "40.00 ± 0.00"]
    assert seeds == ["seeds", "2"]


def test_errors_are_shown_by_exits_seen():
    """After one exit, after three, and the mean over all."""
    rows = [
        {
            "dataset": "mnist",
            "network": "tiny",
            "predictor": "exit_means",
            "seen": seen,
            "mean_absolute_error": error,
        }
        for seen, error in enumerate((0.4, 0.3, 0.2, 0.1))
    ]
    assert elastic_tables.elastic_predictors(rows)[1:] == [
        ["tiny, mnist", "exit means", "0.3000", "0.1000", "0.2500"]
    ]


def test_gaps_are_in_points():
    """What a search gives away is a share of right answers."""
    row = {"exits": 3, "stops": "uniform", "planner": "greedy", "p50_ms": 0.01, "p99_ms": 0.02}
    table = elastic_tables.elastic_planner([{**row, "optimality_gap": 0.01, "worst_gap": 0.1}])
    assert table[1] == ["3", "uniform", "greedy", "0.0100", "0.0200", "1.000", "10.000"]


def test_modes_stand_beside_each_other():
    """A mode that only one kind of stop has leaves the other's cells empty."""
    facts = {"accuracy": 0.5, "answered": 0.75, "edge_ms": 12.0}
    rows = [
        {"stops": "uniform", "mode": "elastic", **facts},
        {"stops": "pre-empted", "mode": "elastic", **facts},
        {"stops": "pre-empted", "mode": "elastic", **facts, "accuracy": 0.7},
        {"stops": "pre-empted", "mode": "told nothing", **facts},
    ]
    _, elastic, unaware = elastic_tables.elastic_modes(rows)
    assert elastic[1:4] == ["50.00 %", "75.00 %", "12.0"]
    assert elastic[4] == "60.00 ± 14.14 %"
    assert unaware[1:4] == ["", "", ""]


def test_streams_are_counted_by_what_clients_hold():
    """Whoever hung up before the first exit ran is not owed an answer."""
    rows = [
        {"reached": True, "held": 2, "ended": False, "ran": 3, "late_ms": 2.0},
        {"reached": True, "held": 0, "ended": False, "ran": 0, "late_ms": 4.0},
        {"reached": True, "held": 5, "ended": True, "ran": 5, "late_ms": -3.0},
        {"reached": False, "held": 0, "ended": False, "ran": 0, "late_ms": 0.0},
    ]
    line = elastic_tables.elastic_live(rows)[1]
    assert line == ["4", "2", "3.0 ms", "4.0 ms", "4.0 ms", "2 of 2 whose first exit ran"]


def test_deadlines_are_columns():
    """A mode has a row, with its accuracy at each."""
    rows = [
        {"deadline": share, "mode": mode, "accuracy": 0.5 + share / 10}
        for share in (0.2, 1.0)
        for mode in ("planned", "every exit")
    ]
    head, planned, _ = elastic_tables.elastic_deadlines(rows)
    assert head == ["mode", "20% of the whole", "100% of the whole"]
    assert planned == ["planned", "52.00 %", "60.00 %"]
