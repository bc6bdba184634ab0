import numpy as np
import pytest

from benchmarks import plots, policy_plots

MOST_BYTES = 200_000  # of a picture in the repository


def rewards(trace, **by_policy):
    """Rows of one trace, of each policy one or, by seed, several rewards."""
    return [
        {"policy": policy, "trace": trace, "seed": seed, "reward": reward}
        for policy, found in by_policy.items()
        for seed, reward in enumerate(found)
    ]


def drifts():
    """Two repeats of two sides."""
    return [
        {"side": side, "repeat": repeat, "phase": phase, "missed": missed, **recovery}
        for side, more in (("static", 0.2), ("learned", 0.0))
        for repeat in (0, 1)
        for phase, missed, recovery in (
            ("before", 0.1 + more, {}),
            ("during", 0.3 + more + repeat / 10, {"recovery_s": 20.0}),
            ("after", 0.1 + more, {"recovery_s": 3.0 + repeat}),
        )
    ]


def compared():
    """Two scenarios."""
    return [
        {"scenario": name, "metric": metric, "simulated": 1.1 * measured, "measured": measured}
        for name in ("split", "edge")
        for metric, measured in (
            ("p50_ms", 40.0),
            ("p95_ms", 90.0),
            ("deadline_satisfaction", 0.8),
            ("mean_exit", 7.0),
            ("crossed", 0.3),
        )
    ]


def test_every_training_has_its_curve():
    """Two seeds of PPO are told apart by their lines, beside the forecast's at zero."""
    rows = [
        {"policy": "ppo", "seed": seed, "steps": steps, "validation": steps / 1_000 - seed}
        for seed in (0, 1)
        for steps in (100, 200)
    ]
    ((name, figure),) = policy_plots.learning_curves(rows)
    assert name == "learning_curves"
    forecast, *runs = figure.axes[0].get_lines()
    assert set(forecast.get_ydata()) == {0}
    assert [run.get_label() for run in runs] == ["PPO, seed 0", "PPO, seed 1"]
    assert list(runs[1].get_ydata()) == pytest.approx([-0.9, -0.8])
    assert runs[0].get_linestyle() != runs[1].get_linestyle()


def test_policies_are_drawn_by_trace_and_beside_the_forecast():
    """Means over seeds, traces in any order; close up in thousandths, without what is far."""
    rows = rewards("t1", forecast=[1.80], ppo=[1.81, 1.83], greedy=[1.7])
    rows += rewards("t2", greedy=[1.6], ppo=[1.79, 1.79], forecast=[1.79])
    ((name, figure),) = policy_plots.policies(rows)
    assert name == "policies"
    whole, close = (
        {bars.get_label(): [*bars.lines[0].get_xdata()] for bars in axis.containers}
        for axis in figure.axes
    )
    assert set(whole) == {"PPO", "best forecast, untrained", "least latency (greedy)"}
    assert whole["PPO"] == pytest.approx([1.82, 1.79])
    assert set(close) == {"PPO"}
    assert close["PPO"] == pytest.approx([20, 0])


def test_drift_is_drawn_in_means_over_repeats():
    """A bar for each side and phase; there is nothing to recover from before the drift."""
    ((name, figure),) = policy_plots.drift(drifts())
    assert name == "drift"
    missed, recovery = (
        {
            bars.get_label(): [bar.get_height() for bar in bars]
            for bars in axis.containers
            if hasattr(bars, "patches")
        }
        for axis in figure.axes
    )
    assert missed["static"] == pytest.approx([30, 55, 30])
    assert missed["learned"] == pytest.approx([10, 35, 10])
    assert recovery["learned"] == pytest.approx([20, 3.5])


def test_misses_over_time_are_means_over_repeats_and_seconds():
    """Of all requests in three seconds, of both repeats together."""
    rows = [
        {
            "side": "static",
            "repeat": repeat,
            "second": second,
            "phase": ("before", "during", "after")[second // 3],
            "requests": 10,
            "missed": repeat * (second == 4),
        }
        for repeat in (0, 6)
        for second in range(9)
    ]
    ((name, figure),) = policy_plots.drift_seconds(rows)
    assert name == "drift_seconds"
    (line,) = figure.axes[0].get_lines()
    assert list(line.get_ydata()) == pytest.approx([0, 0, 0, 10, 10, 10, 0, 0, 0])


def test_only_what_has_a_goal_is_drawn_of_the_simulator():
    """Two scenarios have two quantiles each on the left and a share each on the right."""
    ((name, figure),) = policy_plots.simulator_fidelity(compared())
    assert name == "simulator_fidelity"
    points = [
        [(*line.get_xdata(), *line.get_ydata()) for line in axis.get_lines()[:-1]]
        for axis in figure.axes
    ]
    np.testing.assert_allclose(points[0], [(40, 44), (90, 99)] * 2)
    np.testing.assert_allclose(points[1], [(80, 88)] * 2)


@pytest.mark.parametrize(
    ("name", "rows"), [("drift", drifts()), ("simulator_fidelity", compared())]
)
def test_pictures_are_small_enough(name, rows, tmp_path):
    """They are drawn as the others are."""
    for title, figure in plots.PLOTS[name](rows):
        path = tmp_path / f"{title}.png"
        figure.savefig(path, dpi=plots.DPI)
        assert path.stat().st_size < MOST_BYTES
