from benchmarks import policy_tables

FACTS = {"deadline_satisfaction": 0.9, "accuracy": 0.8, "edge_ms": 12.0}


def row(policy, seed, reward, trace="t1"):
    return {"policy": policy, "trace": trace, "seed": seed, "reward": reward, **FACTS}


def test_policies_are_compared_with_the_oracles_mean():
    """The mean over traces and seeds, as a share of the oracle's; the range is of seeds' means."""
    rows = [row("oracle", 0, 1.8), row("oracle", 0, 2.0, "t2")]
    rows += [row("ppo", seed, 1.6 + 0.2 * seed, trace) for seed in (0, 1) for trace in ("t1", "t2")]
    head, ceiling, ppo = policy_tables.policies(rows)
    assert len(head) == len(ppo)
    assert ceiling[1:3] == ["1.9000", "100.0%"]
    assert ppo[1:4] == ["1.7000 (1.6000 to 1.8000)", "89.5%", "90.00%"]


def test_traces_stand_by_themselves():
    """Each trace has a line, with each policy's own figures."""
    rows = [row("oracle", 0, 1.8), row("fixed", 0, 1.5), row("oracle", 0, 2.0, "t2")]
    rows.append(row("fixed", 0, 1.7, "t2"))
    _, first, second = policy_tables.policies_by_trace(rows)
    assert first == ["`t1`", "1.8000, 90.00%", "1.5000, 90.00%"]
    assert second == ["`t2`", "2.0000, 90.00%", "1.7000, 90.00%"]


def test_speed_is_the_median_repeats():
    """Of three repeats the middle one counts."""
    rows = [
        {"sites": 3, "repeat": n, "requests": 1_000, "seconds": seconds}
        for n, seconds in enumerate((0.5, 0.1, 0.2))
    ]
    assert policy_tables.simulator_speed(rows)[1] == ["3", "1,000", "0.20", "5,000"]


def test_a_training_is_told_by_its_best_validation():
    """With when it came, and what the whole training took."""
    rows = [
        {"policy": "sac", "seed": 2, "steps": steps, "seconds": steps / 10, "validation": value}
        for steps, value in ((600, 0.1), (1_200, 0.4), (1_800, 0.3))
    ]
    assert policy_tables.learning_curves(rows)[1] == ["SAC", "2", "+0.400", "1,200", "1,800", "3.0"]


def test_encodings_stand_beside_each_other_by_algorithm():
    """Mean and deviation over seeds in thousandths; what was not trained is left empty."""
    rows = [
        {
            "algorithm": algorithm,
            "encoding": encoding,
            "seed": seed,
            "gain": gain,
            "seconds": 90.0,
            "actions": "Discrete(12)",
        }
        for algorithm, encoding, seed, gain in (
            ("ppo", "shortlist", 0, -0.001),
            ("ppo", "shortlist", 1, -0.003),
            ("sac", "box", 0, 0.0015),
        )
    ]
    assert policy_tables.encodings(rows) == [
        ["encoding", "actions", "seeds", "PPO: gain", "minutes", "SAC: gain", "minutes"],
        ["shortlist", "`Discrete(12)`", "2", "-2.0 ± 1.4", "1.5", "", ""],
        [policy_tables.ENCODINGS["box"], "`Discrete(12)`", "1", "", "", "1.5", "1.5"],
    ]


def test_misses_and_recoveries_are_told_by_side_and_phase():
    """Means and deviations over repeats; a repeat with no answer in time has no accuracy."""
    rows = [
        {"side": side, "repeat": repeat, "phase": phase, "missed": missed, **figures}
        for side, repeat, phase, missed, figures in (
            ("static", 0, "before", 0.10, {"accuracy": 0.9}),
            ("static", 0, "during", 1.00, {"accuracy": float("nan"), "recovery_s": 30.0}),
            ("static", 0, "after", 0.20, {"accuracy": 0.9, "recovery_s": 4.0}),
            ("static", 1, "before", 0.12, {"accuracy": 0.9}),
            ("static", 1, "during", 0.80, {"accuracy": 0.7, "recovery_s": 20.0}),
            ("static", 1, "after", 0.20, {"accuracy": 0.9, "recovery_s": 5.0}),
            ("learned", 0, "before", 0.02, {"accuracy": 0.9}),
            ("learned", 0, "during", 1.00, {"accuracy": float("nan"), "recovery_s": 2.5}),
            ("learned", 0, "after", 0.00, {"accuracy": 0.9, "recovery_s": 0.0}),
        )
    ]
    head, static, learned = policy_tables.drift(rows)
    assert len(head) == len(static) == len(learned)
    assert static[:5] == ["`static`", "2", "11.0 ± 1.4", "90.0 ± 14.1", "20.0 ± 0.0"]
    assert static[5:] == ["70.0", "7.0 ± 9.9", "25.0 ± 7.1", "4.5 ± 0.7"]
    assert learned == ["`learned`", "1", "2.0", "100.0", "0.0", "", "0.0", "2.5", "0.0"]


def test_latencies_differ_in_percent_and_shares_in_points():
    """As the goals do; what has no goal is told without one."""
    rows = [
        {"scenario": "split", "metric": metric, "simulated": simulated, "measured": measured}
        for metric, simulated, measured in (
            ("p50_ms", 44.0, 40.0),
            ("deadline_satisfaction", 0.90, 0.92),
            ("mean_exit", 6.0, 8.0),
        )
    ]
    assert policy_tables.simulator_fidelity(rows)[1:] == [
        ["`split`", "p50, ms", "44.00", "40.00", "+10.0%", "within 10%"],
        ["`split`", "in time", "90.0%", "92.0%", "-2.0 points", "within 3 points"],
        ["`split`", "mean exit", "6.00", "8.00", "-25.0%", ""],
    ]
