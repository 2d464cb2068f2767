"""ORPO's odds ratio is the paper's formula, with gradients, and holds at the ends of the scale."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

from tuneloop.forward.preference import mean_log_p, odds_ratio_loss

wide = torch.float64


def test_the_formula() -> None:
    p, q = torch.tensor([0.7, 0.2, 0.5], dtype=wide), torch.tensor([0.1, 0.6, 0.5], dtype=wide)
    expected = -torch.log(torch.sigmoid(torch.log((p / (1 - p)) / (q / (1 - q)))))
    torch.testing.assert_close(odds_ratio_loss(p.log(), q.log()), expected, rtol=1e-12, atol=0)
    assert float(odds_ratio_loss(q.log(), q.log())[0]) == pytest.approx(0.6931471805599453)


def test_gradcheck() -> None:
    pair = [torch.tensor(values, dtype=wide, requires_grad=True) for values in ([-0.1, -3.0], [-2.0, -0.01])]
    assert gradcheck(odds_ratio_loss, pair)


@pytest.mark.parametrize(("chosen", "rejected"), [(0.0, -5.0), (-5.0, 0.0), (0.0, 0.0), (-1e4, -1e-9), (-1e-9, -1e4)])
def test_certainty_is_finite(chosen: float, rejected: float) -> None:
    pair = [torch.tensor([value], requires_grad=True) for value in (chosen, rejected)]
    loss = odds_ratio_loss(pair[0], pair[1]).sum()
    loss.backward()
    assert all(bool(torch.isfinite(value).all()) for value in (loss.detach(), pair[0].grad, pair[1].grad))  # type: ignore[arg-type]


def test_means_are_of_each_row() -> None:
    nll, rows = torch.tensor([1.0, 3.0, 5.0, 7.0]), torch.tensor([1, 0, 1, 0])
    assert mean_log_p(nll, torch.tensor([1.0, 1.0, 3.0, 1.0]), rows, 2).tolist() == [-5.0, -4.0]
