"""ORPO: how much likelier the better of two answers is, as odds (Hong et al. 2024, arXiv 2403.07691).

Shapes: N scored positions, P pairs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def mean_log_p(nll_N: Tensor, weights_N: Tensor, rows_N: Tensor, rows: int) -> Tensor:
    """Weighted mean of log p(token) of each row, [rows]."""
    sums = nll_N.new_zeros(rows).index_add(0, rows_N, -nll_N * weights_N)
    return sums / nll_N.new_zeros(rows).index_add(0, rows_N, weights_N.to(nll_N.dtype))


def odds_ratio_loss(chosen_P: Tensor, rejected_P: Tensor) -> Tensor:
    """-log σ(log odds(chosen) - log odds(rejected)) [P], where odds(p) = p / (1 - p) and p = exp of a mean log p."""
    return -F.logsigmoid(_log_odds(chosen_P) - _log_odds(rejected_P))


def _log_odds(log_p: Tensor) -> Tensor:
    # at p = 1 the odds are infinite; half of float32's resolution below it they are not, and have no gradient
    log_p = log_p.clamp(max=-(2.0**-24))
    return log_p - torch.log(-torch.expm1(log_p))
