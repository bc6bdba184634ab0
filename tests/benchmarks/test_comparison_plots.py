import pytest

from benchmarks import comparison_plots as plots
from benchmarks.comparison_tables import NAMES


def test_every_system_has_a_line_of_its_own():
    """No two are alike in colour, marker and stroke."""
    looks = [tuple(style.get(key) for key in ("color", "marker", "linestyle")) for style in STYLES]
    assert len(set(looks)) == len(NAMES)


STYLES = plots.SYSTEMS.values()


def test_bars_stand_for_both_figures_of_every_data_set(make_rows):
    """Two data sets make two lines of two panels, each with a bar for each system."""
    ((name, figure),) = plots.figure4(make_rows() + make_rows(dataset="tiny_imagenet"))
    assert name == "figure4"
    assert [len(axis.patches) for axis in figure.axes] == [2] * 4
    assert figure.axes[1].patches[0].get_height() == pytest.approx(92.5)


def test_lines_go_over_loads(make_rows):
    """From light to heavy, Xpi first."""
    ((_, figure),) = plots.figure4_load(make_rows())
    xpi = figure.axes[0].get_lines()[0]
    assert xpi.get_label() == "Xpi"
    assert list(xpi.get_xdata()) == [0.5, 1.0]
    assert list(xpi.get_ydata()) == pytest.approx([95.0, 90.0])


def test_exits_are_stacked_by_tier():
    """Of the load that is nearest to the middle, in a panel for each system."""
    row = {"system": "spinn", "dataset": "cifar10", "load": 0.7, "share": 0.5}
    rows = [{**row, "exit": 3, "tier": tier} for tier in ("edge", "cloud")]
    rows.append({**row, "load": 3.0, "exit": 1, "tier": "edge"})
    ((name, figure),) = plots.figure4_exits(rows)
    assert name == "figure4_exits_cifar10"
    assert [bar.get_y() for bar in figure.axes[0].patches] == [0.0, 50.0]


def test_bands_of_several_loads_are_averaged_by_requests():
    """Three requests of one load count three times one of another."""
    row = {"system": "xpi", "dataset": "cifar10", "from_bps": 1e5, "mean_bps": 2e5}
    rows = [
        {**row, "load": 1.0, "requests": 3, "deadline_satisfaction": 1.0},
        {**row, "load": 2.0, "requests": 1, "deadline_satisfaction": 0.0},
    ]
    ((_, figure),) = plots.figure4_bandwidth(rows)
    assert list(figure.axes[0].get_lines()[0].get_ydata()) == [75.0]
