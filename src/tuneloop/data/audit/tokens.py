"""What the rows cost in tokens of the chosen model: the share that is supervised, and what max_length would cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuneloop.core.conversation import JsonObject
from tuneloop.data.audit.blocks import Block, Columns, Figures, Table
from tuneloop.data.audit.question import Question
from tuneloop.data.audit.reading import Reading
from tuneloop.data.findings import finding
from tuneloop.pages.numbers import count, share
from tuneloop.stats.intervals import wilson

TRUNCATED_ERROR = 0.2  # of the rows above max_length
UNSUPERVISED_ERROR = 0.2  # of the rows without a supervised token
FEW_SUPERVISED = 0.02  # of the tokens
BINS = 24
_STEPS = [factor * 10**power for power in range(8) for factor in (1, 2, 5)]
ROUND = 64  # tokens: a suggested max_length is a multiple of it


class Tokens(Question):
    """Tokens of a sample of rows, forecast for all."""

    name = "tokens"
    title = "Tokens"
    about = "Counted with the model's own template and tokenizer on a sample; supervised tokens carry the loss."
    unchecked = "the recipe's tokenizer is not there, or no row is left"

    def measure(self, data: Reading) -> JsonObject | None:
        forecast = data.facts.forecast
        if forecast is None or not len(forecast.tokens):
            return None
        tokens, supervised = np.asarray(forecast.tokens), np.asarray(forecast.supervised)
        assert tokens.shape == supervised.shape and (supervised <= tokens).all()
        rows, above = len(tokens), int((tokens > forecast.max_length).sum())
        low, high = wilson(above, rows)
        quantiles = np.quantile(tokens, [0.05, 0.5, 0.95, 0.99], method="inverted_cdf").tolist()
        return {
            "tokenizer": forecast.tokenizer,
            "max_length": forecast.max_length,
            "rows": rows,
            "tokens": dict(zip(("p5", "p50", "p95", "p99"), map(int, quantiles), strict=True))
            | {"max": int(tokens.max())},
            "total": round(float(tokens.mean()) * data.table.height),
            "supervised_share": round(float(supervised.sum() / max(1, tokens.sum())), 4),
            "without_supervised": int((supervised == 0).sum()),
            "above": {"rows": above, "share": above / rows, "low": low, "high": high},
            "suggested": ROUND * -(-int(quantiles[-1]) // ROUND),
            "histogram": _histogram(tokens, forecast.max_length),
        }

    def judge(self, section: JsonObject) -> list[JsonObject]:
        rows, none, above = section["rows"], section["without_supervised"], section["above"]
        found: list[JsonObject] = []
        if none:
            level = "ERROR" if none > UNSUPERVISED_ERROR * rows else "WARN"
            text = f"{share(none, rows)} of {count(rows)} rows have no supervised token: they teach nothing"
            advice = (
                "look at some with tuneloop preview; the roles, the weights or the chat template are not what you think"
            )
            found.append(finding(level, "no_supervised_tokens", none, text, next=advice))
        elif section["supervised_share"] < FEW_SUPERVISED:
            text = f"only {share(section['supervised_share'])} of the tokens are supervised; prompts take the time"
            advice = "shorten prompts, or train on more of the turns (train: per message)"
            found.append(finding("INFO", "few_supervised_tokens", rows, text, next=advice))
        if above["rows"]:
            level = "ERROR" if above["share"] > TRUNCATED_ERROR else "WARN"
            text = (
                f"{share(above['share'])} (95 %: {share(above['low'])} to {share(above['high'])}) of the rows are "
                f"longer than max_length {count(section['max_length'])}"
            )
            advice = f"max_length {section['suggested']} holds 99 % of the rows; or drop long ones with the step length"
            found.append(finding(level, "truncated", above["rows"], text, next=advice))
        return found

    def show(self, section: JsonObject) -> Sequence[Block]:
        above, drawn = section["above"], section["histogram"]
        interval = f"{share(above['low'])} to {share(above['high'])}"
        figures = [
            ("supervised tokens", share(section["supervised_share"])),
            (f"longer than {count(section['max_length'])}", f"{share(above['share'])}"),
            ("95 % interval", interval),
            ("tokens an epoch", _large(section["total"])),
            ("holds 99 %", f"max_length {section['suggested']}"),
        ]
        labels = [_large(edge) for edge in drawn["from"]]
        mark = (section["max_length"] / drawn["width"], f"max_length {count(section['max_length'])}")
        chart = Columns("Tokens of a row", labels, [("rows", drawn["rows"])], "tokens",
                        mark if mark[0] <= len(labels) else None)  # fmt: skip
        names = ("5 % have at most", "half have at most", "95 % have at most", "99 % have at most", "longest")
        lines = [[name, count(value)] for name, value in zip(names, section["tokens"].values(), strict=True)]
        note = f"{count(section['rows'])} rows counted with {section['tokenizer']}."
        return [
            Figures(figures),
            chart,
            Table(["tokens of a row", "tokens"], lines, title="In numbers", note=note, beside=True),
        ]


def _histogram(tokens: np.ndarray, max_length: int) -> JsonObject:
    """Rows by tokens in columns of equal width; the last column holds all that is longer."""
    end = min(int(tokens.max()) + 1, max(2 * max_length, int(np.quantile(tokens, 0.99)) + 1))
    width = next(step for step in _STEPS if step * BINS >= end)
    rows = np.bincount(np.minimum(tokens // width, BINS - 1).astype(np.int64), minlength=1)
    return {"width": width, "from": [width * index for index in range(len(rows))], "rows": rows.tolist()}


def _large(value: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g} {unit}"
    return count(value)
