import pytest
import torch
from torch import nn

from benchmarks import importance


def test_likeness_of_shares_that_are_turned_round():
    """Shares .6 .3 .1 against .1 .3 .6 differ by 1 in all, and their correlation is Pearson's."""
    own, oracle = torch.tensor([[0.6, 0.3, 0.1]]), torch.tensor([[0.1, 0.3, 0.6]])
    found = importance.likeness(own, oracle)
    assert found["relative_l1"] == pytest.approx(1.0)
    expected = torch.corrcoef(torch.cat([own, oracle]))[0, 1]
    assert found["correlation"] == pytest.approx(float(expected), abs=1e-5)


def test_more_steps_leave_a_smaller_gap(monkeypatch):
    """On a smooth network the gap shrinks with the steps, and saliency is Captum's own."""
    monkeypatch.setattr(importance, "STEPS", (1, 4, 64))
    torch.manual_seed(0)
    reference = nn.Sequential(nn.Conv2d(3, 6, 3), nn.GELU(), nn.Flatten(), nn.Linear(24, 4))
    for parameter in reference.parameters():
        parameter.data *= 3
    reference.eval().requires_grad_(False)
    *integrated, saliency = importance.agreement(
        reference, torch.rand(5, 3, 4, 4), torch.arange(5) % 4
    )
    for key in ("completeness_gap_mean", "relative_l1"):
        gaps = [row[key] for row in integrated]
        assert gaps == sorted(gaps, reverse=True)
        assert gaps[-1] < 0.01 < gaps[0]
    assert saliency["correlation"] == pytest.approx(1.0)
    assert saliency["relative_l1"] == pytest.approx(0.0, abs=1e-5)
