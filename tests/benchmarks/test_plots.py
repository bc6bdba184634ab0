import pytest

from benchmarks import plots

MOST_BYTES = 200_000  # of a picture in the repository


def exits(training, seeds=3):
    """Rows of one training of twelve exits."""
    return [
        {"training": training, "seed": s, "exit": e, "accuracy": 0.5 + s / 50, "cumulative_macs": e}
        for s in range(seeds)
        for e in range(1, 13)
    ]


def test_a_sweep_has_a_panel_of_its_own():
    """Plain training and XAI are in every panel, a sweep only in its own."""
    rows = [
        row
        for t in ("plain_joint", "xai_joint", "front_to_back", "xai_joint_rho_0.9")
        for row in exits(t)
    ]
    ((name, figure),) = plots.training_ablation(rows)
    assert name == "training_ablation"
    drawn = [{line.get_label() for line in axis.get_lines()} for axis in figure.axes]
    assert drawn == [
        {"plain_joint", "xai_joint", "front_to_back"},
        {"plain_joint", "xai_joint", "xai_joint_rho_0.9"},
    ]


def test_exits_are_drawn_beside_those_of_msdnet():
    """Every exit at its cost, and the ten published ones."""
    ((name, figure),) = plots.exits_cifar10(exits("distilled", seeds=1))
    assert name == "exits_cifar10"
    own, published = figure.axes[0].get_lines()
    assert own.get_ydata().tolist() == [50] * 12
    assert len(published.get_xdata()) == 10


@pytest.mark.parametrize("partitions", [(1,), (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)])
def test_each_network_has_a_picture_of_carries(partitions, tmp_path):
    """Two networks make two pictures, each small enough, of whatever partitions there are."""
    rows = [
        {
            "dataset": "cifar10",
            "network": network,
            "training": training,
            "partition": partition,
            "level": level,
            "bytes_mean": size,
            "accuracy": 0.9,
        }
        for network in ("small12", "xpi12")
        for training in ("plain_joint", "xai")
        for partition in partitions
        for level, size in (("minmax8-lz4", 900), ("minmax4-lz4", 500), ("centres8-lz4", 400))
    ]
    pictures = dict(plots.carry_rate(rows))
    assert list(pictures) == ["carry_rate_small12_cifar10", "carry_rate_xpi12_cifar10"]
    path = tmp_path / "picture.png"
    pictures["carry_rate_xpi12_cifar10"].savefig(path, dpi=plots.DPI)
    assert path.stat().st_size < MOST_BYTES
