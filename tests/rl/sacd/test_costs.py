import json

import pytest

from rl.sacd.costs import ACTIONS, Action, Costs, of_distinct
from xpi_ray.errors import DataError


def test_there_are_as_many_actions_as_in_the_paper():
    """3 exits, 21 partitions, 3 numbers of bits; no two alike."""
    assert len(set(ACTIONS)) == len(ACTIONS) == 3 * 21 * 3


def test_the_table_survives_its_file(costs, tmp_path):
    """Every figure comes back."""
    costs.save(tmp_path / "costs.json", {"images": 7})
    assert Costs.load(tmp_path / "costs.json") == costs
    assert json.loads((tmp_path / "costs.json").read_text())["settings"] == {"images": 7}


def test_columns_are_in_the_order_of_actions(costs, rows):
    """Also where several actions are one and the same."""
    known = {row[:3]: row for row in rows}
    for name in ("payload_bytes", "accuracy", "before_ms"):
        expected = [getattr(known[of_distinct(action)], name) for action in ACTIONS]
        assert costs.column(name).tolist() == expected


def test_behind_the_last_layer_all_partitions_are_one():
    """Nothing crosses, so bits do not matter."""
    assert of_distinct(Action(1, 9, 4)) == of_distinct(Action(1, 20, 12)) == (1, 9, 0)
    assert of_distinct(Action(3, 19, 8)) == (3, 19, 8)


def test_a_missing_choice_is_named(rows):
    """By exit, partition and bits."""
    with pytest.raises(DataError, match=r"\(2, 3, 8\) are missing"):
        Costs(tuple(row for row in rows if row[:3] != (2, 3, 8)))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1.0])
def test_a_figure_that_is_none_is_refused(rows, wrong):
    """Times, sizes and accuracies are finite and not negative."""
    with pytest.raises(DataError, match="finite"):
        Costs((rows[0]._replace(before_ms=wrong), *rows[1:]))


@pytest.mark.parametrize("text", ["", "{}", '{"rows": [{"exit": 1}]}', '{"rows": 3}'])
def test_a_damaged_file_is_named(text, tmp_path):
    """With what to do."""
    path = tmp_path / "costs.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"costs\.json holds no costs.*anew"):
        Costs.load(path)


def test_a_missing_file_names_the_command(tmp_path):
    """The one that makes it."""
    with pytest.raises(DataError, match="xpi train-sacd"):
        Costs.load(tmp_path / "none.json")
