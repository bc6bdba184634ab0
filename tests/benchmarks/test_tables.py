import pytest

from benchmarks import tables


def exits(training, seed, *accuracies):
    """Rows of one run, an accuracy for each exit."""
    return [
        {"training": training, "seed": seed, "exit": number, "accuracy": accuracy}
        for number, accuracy in enumerate(accuracies, start=1)
    ]


def test_a_training_stands_beside_plain_training_on_the_same_seeds():
    """XAI's seed 0 leads by 2 points at exit 1; plain's seed 1, without a partner, is left out."""
    rows = exits("plain_joint", 0, 0.5, 0.7) + exits("plain_joint", 1, 0.9, 0.9)
    rows += exits("xai", 0, 0.52, 0.68)
    assert tables.training_ablation(rows) == [
        ["training", "seeds", "exit 1", "mean of all exits"],
        ["`plain_joint`", "2", "70.00 ± 28.28", "75.00 ± 21.21"],
        ["`xai`", "1", "52.00 (+2.00)", "60.00 (+0.00)"],
    ]


def test_skewness_is_the_mean_over_blocks_and_seeds():
    """Each block's column averages seeds; the spread is that of the seeds' means."""
    key = {"dataset": "d", "network": "n", "training": "xai", "reference": "fresh"}
    rows = [
        {
            **key,
            "seed": seed,
            "block": block,
            "skewness": found,
            "disorder_violation_rate": 0.01,
            "misplaced_share": 0.2,
        }
        for seed, block, found in ((0, 1, 0.6), (0, 2, 0.8), (1, 1, 0.8), (1, 2, 1.0))
    ]
    assert tables.skewness(rows)[1] == [
        *("n, d", "`xai`", "fresh", "0.70", "0.90"),
        *("0.80 ± 0.14", "1.0%", "20.0%"),
    ]


def test_carry_rate_counts_the_partitions_where_it_is_as_accurate():
    """XAI needs half a frame at the one partition of two where it is accurate enough."""
    key = {"dataset": "d", "network": "n", "seed": 0, "level": "minmax8-lz4"}
    found = [
        {**key, "training": t, "partition": p, "bytes_mean": size, "accuracy": accuracy}
        for t, p, size, accuracy in (
            ("plain_joint", 1, 100, 0.9),
            ("plain_joint", 2, 100, 0.9),
            ("xai", 1, 50, 0.9),
            ("xai", 2, 50, 0.8),
        )
    ]
    rows = [{**row, "entropy_bytes": row["bytes_mean"]} for row in found]
    assert tables.carry_rate(rows)[2] == [
        *("n, d", "`xai`", "90.00%", "1 of 2", "not reached", "not reached", "0.50 x")
    ]
    first = [row for row in rows if row["partition"] == 1]
    assert tables.carry_rate(first)[2][3:] == ["1 of 1", "0.50 x", "0.50 x", "0.50 x"]


def test_agreement_of_saliency_has_no_steps_and_no_gap():
    """Only integrated gradients are complete in the limit, so saliency's cells stay empty."""
    row = {"attribution": "saliency", "block": 4, "correlation": 1.0, "relative_l1": 0.0}
    expected = ["`saliency`", "4", "", "", "", "1.0000", "0.0000"]
    assert tables.importance([row])[1] == expected


def test_cost_is_the_median_over_repeats():
    """One slow repeat of three does not count."""
    rows = [
        {"side": "xai", "step_ms": ms, "ready_s": 2.0, "epoch_s": ms, "ratio": ms / 100}
        for ms in (200.0, 900.0, 210.0)
    ]
    assert tables.training_cost(rows)[1] == ["`xai`", "210", "2.0", "210", "2.10 x"]


def test_errors_of_an_estimator_are_means_over_arrivals():
    """Each estimator has its column; what was asked after samples stays out."""
    key = {"trace": "t", "use": "held_out", "nothing_carried": 3}
    rows = [
        {**key, "arrivals": arrivals, "estimator": name, "asked": asked, **figures}
        for name, asked, arrivals, figures in (
            ("ewma", "second", "poisson", {"error_median": 0.2, "error_p90": 1.0}),
            ("ewma", "second", "gaps", {"error_median": 0.4, "error_p90": 2.0}),
            ("ewma", "sample", "gaps", {"error_median": 9.0, "error_p90": 9.0}),
            (
                "ours",
                "second",
                "poisson",
                {"error_median": 0.1, "error_p90": 0.5, "within_80": 0.8},
            ),
            ("ours", "second", "gaps", {"error_median": 0.1, "error_p90": 0.7, "within_80": 0.6}),
        )
    ]
    assert tables.estimator(rows) == [
        ["trace", "use", "`ewma`", "`ours`", "within 80 %", "dead seconds"],
        ["t", "held out", "0.30 / 1.50", "0.10 / 0.60", "70%", "3"],
    ]


def test_a_marked_table_without_a_result_is_left_alone(tmp_path, monkeypatch):
    """A text is filled only where a benchmark has left a file."""
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    text = "a\n<!-- table: plan_push -->\nold\n<!-- end -->\n"
    assert tables.fill(text) == text
    (tmp_path / "plan_push.json").write_text(
        '{"rows": [{"routers": 1, "p50_ms": 2, "p95_ms": 3, "pushes": 4}]}'
    )
    assert "| 1 | 2 | 3 | 4 |" in tables.fill(text)


@pytest.mark.parametrize("document", tables.DOCUMENTS, ids=lambda path: path.parent.name)
def test_every_marker_names_a_table(document):
    """No document asks for a table that nothing makes."""
    names = set(tables.re.findall(r"<!-- table: (\w+) -->", document.read_text()))
    assert names <= set(tables.TABLES)
