from pathlib import Path

import pytest

from benchmarks import comparison
from benchmarks.comparison import Step, steps


def test_what_a_step_needs_is_made_before():
    """A training starts from one that was made before it, and bundles of peers come before runs."""
    made = []
    for step in steps():
        words = step.words
        if "--start-from" in words:
            start = Path(words[words.index("--start-from") + 1])
            assert any(start in path.parents for path in made)
        made += step.made
    commands = [" ".join(step.words) for step in steps()]
    order = [
        next(number for number, command in enumerate(commands) if wanted in command)
        for wanted in ("xpi train ", "benchmarks.peers", "train-edgeml", "benchmarks.figure4")
    ]
    assert order == sorted(order)


def test_only_what_is_missing_is_made(tmp_path):
    """A step is done when all that it makes is there; one that makes nothing is always run."""
    first, second = tmp_path / "first", tmp_path / "second"
    step = Step(("true",), (first, second))
    first.touch()
    assert not step.is_done
    second.touch()
    assert step.is_done
    assert not Step(("true",)).is_done


def test_the_small_comparison_has_the_same_bundles():
    """It differs in what is run."""

    def making(short):
        return [step for step in steps(short) if step.made]

    assert making(True) == making(False)
    assert any("--short" in step.words for step in steps(True))
    assert not any("--short" in step.words for step in steps(False))


@pytest.mark.parametrize("code", [0, 3])
def test_the_first_failure_ends_it(monkeypatch, tmp_path, code):
    """With its exit code; what comes after it is not run."""
    witness = tmp_path / "witness"
    run = [Step(("sh", "-c", f"exit {code}")), Step(("touch", str(witness)))]
    monkeypatch.setattr(comparison, "steps", lambda short: iter(run))
    monkeypatch.setattr("sys.argv", ["comparison"])
    assert comparison.main() == code
    assert witness.exists() == (code == 0)
