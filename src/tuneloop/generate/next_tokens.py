"""What each answer in a batch says next: by its own decoding, schema and random numbers.

Shapes: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tuneloop.generate.live import Finish, TokenLogprob
from tuneloop.generate.rows import Row
from tuneloop.generate.sampling import greedy, sample

if TYPE_CHECKING:
    from tuneloop.render.template import Renderer


def next_tokens(rows: Sequence[Row], logits_BV: Tensor, renderer: Renderer) -> list[int]:
    """The token of each row; its log-probability is left with the row where it is wanted. `logits_BV` is changed."""
    for place, row in enumerate(rows):
        if row.constraint is not None:
            logits_BV[place].masked_fill_(~row.constraint.mask().to(logits_BV.device), float("-inf"))
    tokens = greedy(logits_BV).tolist()
    groups: dict[tuple[float, float, int | None], list[int]] = {}
    for place, row in enumerate(rows):
        how = row.ask.decoding
        if how.temperature:
            groups.setdefault((how.temperature, how.top_p, how.top_k), []).append(place)
    for places in groups.values():
        draws = [rows[place].random for place in places]
        uniform_B = torch.tensor([one.random() for one in draws if one], device=logits_BV.device)
        drawn = sample(logits_BV[places], uniform_B, rows[places[0]].ask.decoding).tolist()
        for place, token in zip(places, drawn, strict=True):
            tokens[place] = token
    for place, row in enumerate(rows):
        if row.ask.logprobs is not None and tokens[place] not in renderer.stop_ids:
            row.logprobs.append(_logprob(logits_BV[place], tokens[place], row.ask.logprobs, renderer))
    return tokens


def guess(rows: Sequence[Row], most: int) -> list[list[int]]:
    """What may come next in each row, so that rows and guessed tokens are not more than `most` together."""
    left, found = most - len(rows), list[list[int]]()
    for place, row in enumerate(rows):
        share = min(left // (len(rows) - place), row.room - len(row.new) - 1)
        found.append(row.guesses.next(row.new, share) if share > 0 else [])
        left -= len(found[-1])
    return found


def advance(
    rows: Sequence[Row], guessed: Sequence[Sequence[int]], logits_TV: Tensor, renderer: Renderer
) -> list[tuple[int, Finish | None]]:
    """Each row takes its next token, and as many more as its guess was right: how many, and why it ends if it does.

    `logits_TV`, row by row, are those after its last token and after each that was guessed; they are changed.
    """
    starts = [0, *accumulate(1 + len(more) for more in guessed)]
    taken: list[tuple[int, Finish | None]] = [(0, None)] * len(rows)
    going = list(range(len(rows)))
    while going:
        logits_BV = (
            logits_TV if len(going) == len(logits_TV) else logits_TV[[starts[at] + taken[at][0] for at in going]]
        )
        tokens = next_tokens([rows[at] for at in going], logits_BV, renderer)
        right = []
        for at, token in zip(going, tokens, strict=True):
            count, finish = taken[at][0], rows[at].take(token, renderer.stop_ids)
            taken[at] = count + 1, finish
            if finish is None and count < len(guessed[at]) and guessed[at][count] == token:
                right.append(at)
        going = right
    for row, more, (count, _) in zip(rows, guessed, taken, strict=True):
        if more:
            row.guesses.checked(len(more), count - 1)
    return taken


def _logprob(logits_V: Tensor, token: int, count: int, renderer: Renderer) -> TokenLogprob:
    """Of the token and of the `count` likeliest at its place, in nats at temperature 1."""
    shares_V = logits_V.log_softmax(-1)
    values, ids = shares_V.topk(count) if count else (shares_V[:0], [])
    top = tuple((*_written(int(id), renderer), float(value)) for value, id in zip(values, ids, strict=True))
    return TokenLogprob(*_written(token, renderer), float(shares_V[token]), top)


def _written(token: int, renderer: Renderer) -> tuple[str, bytes]:
    text = str(renderer.tokenizer.decode([token], clean_up_tokenization_spaces=False))
    return text, text.encode()
