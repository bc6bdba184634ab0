import math

import pytest

from benchmarks.summary import baseline, equal_accuracy, grouped, same_level, spread


def rows(training, *points, partition=1, seed=0):
    """Rows of one training, a level for each (bytes, accuracy)."""
    return [
        {
            "training": training,
            "seed": seed,
            "partition": partition,
            "level": f"level{number}",
            "bytes_mean": size,
            "accuracy": accuracy,
        }
        for number, (size, accuracy) in enumerate(points)
    ]


def test_a_spread_is_of_the_sample():
    """1, 2 and 3 have mean 2 and deviation 1; in percent with one digit: 200.0 ± 100.0."""
    found = spread([1.0, 2.0, 3.0])
    assert (found.mean, found.deviation) == (2.0, 1.0)
    assert found.text(100, 1) == "200.0 ± 100.0"


def test_a_single_value_claims_no_deviation():
    """One seed says nothing about the spread, so the text has none."""
    assert spread([0.5]).text(100) == "50.00"


def test_groups_keep_the_order_of_the_rows():
    """Groups come in the order of their first rows, and hold all rows of theirs."""
    found = grouped([{"a": 2, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 3}], "a")
    assert list(found) == [(2,), (1,)]
    assert [row["b"] for row in found[(2,)]] == [1, 3]


@pytest.mark.parametrize(
    ("training", "plain"),
    [
        ("xai", "plain_joint"),
        ("xai_rho_0.9", "plain_joint"),
        ("xai_k_10", "plain_joint_k_10"),
        ("plain_joint_k_10", "plain_joint_k_10"),
        ("xai_distilled_quantized", "distilled_quantized"),
        ("distilled_quantized", "distilled_quantized"),
    ],
)
def test_a_training_is_compared_with_its_like(training, plain):
    """Plain training of the same network, or what lacks only the explainable-AI losses."""
    assert baseline(training) == plain


def test_equal_accuracy_takes_the_smallest_level_within_half_a_point():
    """Plain reaches 0.9 - 0.005 first at 100 bytes, XAI at 60: 0.6 of it."""
    plain = rows("plain_joint", (200, 0.9), (100, 0.895), (50, 0.89))
    xai = rows("xai", (120, 0.93), (60, 0.8951), (30, 0.8949))
    assert equal_accuracy(plain + xai, "bytes_mean") == {"plain_joint": {1: 1.0}, "xai": {1: 0.6}}


def test_a_training_that_is_never_that_accurate_needs_infinitely_much():
    """XAI is a point behind at every level of partition 2, so nothing is enough there."""
    plain = rows("plain_joint", (100, 0.9)) + rows("plain_joint", (100, 0.9), partition=2)
    xai = rows("xai", (50, 0.9)) + rows("xai", (50, 0.89), partition=2)
    assert equal_accuracy(plain + xai, "bytes_mean")["xai"] == {1: 0.5, 2: math.inf}


def test_seeds_are_averaged_before_they_are_compared():
    """Seeds of 0.91 and 0.89 have 0.90 together, and 40 and 60 bytes have 50."""
    plain = rows("plain_joint", (100, 0.905))
    xai = rows("xai", (40, 0.91)) + rows("xai", (60, 0.89), seed=1)
    assert equal_accuracy(plain + xai, "bytes_mean")["xai"] == {1: 0.5}


def test_the_same_level_is_compared_whatever_the_accuracy():
    """Level by level; a level that plain training does not have is left out."""
    plain = rows("plain_joint", (200, 0.9), (100, 0.8))
    xai = rows("xai", (100, 0.1), (20, 0.1), (5, 0.1))
    assert same_level(plain + xai, "bytes_mean") == {"plain_joint": [1.0, 1.0], "xai": [0.5, 0.2]}
