"""Log-likelihood of the scored tokens of rows, and whether greedy decoding would give just them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tuneloop.forward.batch import Row
from tuneloop.forward.loss import slabs
from tuneloop.forward.objective import Objective


def weigh(objective: Objective, rows: Sequence[Row], *, pad_id: int, budget: int) -> list[tuple[float, bool]]:
    """(summed log-likelihood in nats, whether each scored token is the likeliest) of each row. No gradients."""
    out = [(0.0, True)] * len(rows)
    was_training = objective.training
    objective.eval()
    with torch.inference_mode():
        for picked in objective.micro_batches(rows, range(len(rows)), budget):
            batch = objective.batch([rows[i] for i in picked], pad_id)
            side = objective.side(batch)
            vocabulary = int(side.head.weight.shape[0])  # type: ignore[arg-type, index]
            for slab in slabs(side.hidden_ND, vocabulary):
                logits_NV = side.head(side.hidden_ND[slab])
                logits_NV = (side.finish(logits_NV) if side.finish else logits_NV).float()
                targets_N = batch.targets_N[slab]
                logs_N = logits_NV.log_softmax(-1).gather(-1, targets_N[:, None])[:, 0]
                hits_N = logits_NV.argmax(-1) == targets_N
                found = zip(batch.rows_N[slab].tolist(), logs_N.tolist(), hits_N.tolist(), strict=True)
                for row, log, hit in found:
                    total, all_so_far = out[picked[row]]
                    out[picked[row]] = (total + log, all_so_far and hit)
    objective.train(was_training)
    return out
