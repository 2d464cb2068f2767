"""Rendered rows for people: every token with its loss weight, as JSON, in the terminal and as one HTML page.

Knows nothing of recipes or runs; it shows what the renderer gives, the same that training takes.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

from tuneloop.core.conversation import Example
from tuneloop.render.rendered import Unrenderable
from tuneloop.render.template import Overlong, Renderer

if TYPE_CHECKING:
    from rich.console import Group
    from transformers import PreTrainedTokenizerBase

LEGEND = (
    ("learnt", "weight 1: the model learns to write it"),
    ("scaled", "another weight"),
    ("context", "weight 0: the model reads it"),
)


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """One training sequence, or (`problem`) why the example gives none. The tokens joined are the text."""

    id: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    weights: tuple[float, ...]
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "id": self.id, "ids": list(self.ids), "tokens": list(self.tokens), "weights": list(self.weights),
        }  # fmt: skip
        return row if self.problem is None else {**row, "problem": self.problem}


def preview_rows(
    renderer: Renderer,
    examples: Iterable[Example],
    n: int = 3,
    *,
    max_length: int | None = None,
    overlong: Overlong = "reject",
) -> list[PreviewRow]:
    """The sequences of the first `n` examples; one that cannot be rendered is a row with its problem."""
    rows: list[PreviewRow] = []
    for example in islice(examples, n):
        try:
            rendered = renderer.render(example, max_length=max_length, overlong=overlong)
        except Unrenderable as error:
            rows.append(PreviewRow(example.id, (), (), (), error.reason))
            continue
        for one in rendered:
            ids = one.ids.tolist()
            pieces = tuple(token_texts(renderer.tokenizer, ids))
            rows.append(PreviewRow(example.id, tuple(ids), pieces, tuple(one.weights.tolist())))
    return rows


def to_json(rows: Sequence[PreviewRow]) -> dict[str, Any]:
    """The shape of `tuneloop preview --json`."""
    return {"rows": [row.to_json() for row in rows]}


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """The text of each token; joined they are the decoded ids.

    A character of several tokens stands at its last one, the others are ''. Each token is decoded after its
    predecessors, because SentencePiece writes a space only between words.
    """
    out: list[str] = []
    begin = done = 0  # decoded again for context from `begin`, given out up to `done`
    for end in range(1, len(ids) + 1):
        known, text = _decode(tokenizer, ids[begin:done]), _decode(tokenizer, ids[begin:end])
        if text.endswith("�") and end < len(ids) and end - done < 8:  # the bytes of an unfinished character
            out.append("")
            continue
        out.append(text[len(known) :])
        begin, done = done, end
    return out


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def visible(text: str) -> str:
    """Whitespace that can be seen; a line break stays one."""
    return text.replace(" ", "·").replace("\t", "→\t").replace("\n", "↵\n")


def kind(weight: float) -> str:
    """The name of a loss weight in LEGEND."""
    return "context" if weight == 0 else "learnt" if weight == 1 else "scaled"


def runs(row: PreviewRow) -> list[tuple[float, str]]:
    """Neighbours of the same weight as one piece of text."""
    pairs = zip(row.weights, row.tokens, strict=True)
    return [
        (weight, "".join(token for _, token in group)) for weight, group in groupby(pairs, key=lambda pair: pair[0])
    ]


def summary(row: PreviewRow) -> str:
    """One line about a row: its id and how much of it is learnt."""
    if row.problem is not None:
        return f"{row.id}: not trained on"
    return f"{row.id}: {len(row.ids)} tokens, {sum(weight > 0 for weight in row.weights)} learnt"


def to_rich(rows: Sequence[PreviewRow]) -> Group:
    """The rows for a terminal: learnt tokens in colour (neighbours in two shades), context dim."""
    from rich.console import Group
    from rich.text import Text

    styles = {"learnt": ("black on green", "black on bright_green"), "context": ("dim", "dim"),
              "scaled": ("black on yellow", "black on bright_yellow")}  # fmt: skip
    legend = Text("  ").join(Text(f" {what} ", styles[name][0]) for name, what in LEGEND)
    parts: list[Text] = [legend]
    for row in rows:
        parts += [Text(""), Text(summary(row), "bold")]
        if row.problem is not None:
            parts.append(Text(row.problem, "red"))
            continue
        line, shade = Text(), 0
        for index, (token, weight) in enumerate(zip(row.tokens, row.weights, strict=True)):
            name = kind(weight)
            line.append(visible(token), styles[name][shade % 2])
            shade += bool(token)
            last = index + 1 == len(row.weights) or row.weights[index + 1] != weight
            if name == "scaled" and last:
                line.append(f"×{weight:g}", "bold yellow")
        parts.append(line)
    return Group(*parts)


STYLE = """
:root{color-scheme:light dark;--page:#fff;--text:#1d2129;--dim:#5c6470;--card:#f6f7f9;--line:#dfe3e8;
--learnt:#b7ecc4;--learnt2:#98dfaa;--scaled:#ffe6a3;--scaled2:#ffd874;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--page:#14171c;--text:#e8eaed;--dim:#9aa3ae;--card:#1c2027;--line:#323842;
--learnt:#1f5a33;--learnt2:#2a7040;--scaled:#6b5310;--scaled2:#846818;--bad:#ff8a80}}
body{margin:0 auto;max-width:70rem;padding:2rem 1rem;background:var(--page);color:var(--text);
font:16px/1.5 system-ui,"Noto Sans","Noto Sans CJK SC","PingFang SC","Microsoft YaHei",sans-serif}
h1{font-size:1.4rem}h2{font-size:1rem;font-weight:600;margin:2rem 0 .5rem}
pre{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:1rem;margin:0;white-space:pre-wrap;
overflow-wrap:anywhere;font:14px/1.9 ui-monospace,"Noto Sans Mono","Noto Sans Mono CJK SC",monospace}
.context{color:var(--dim)}.learnt,.scaled{border-radius:.2rem;padding:.1rem 0}
.learnt{background:var(--learnt)}.learnt.odd{background:var(--learnt2)}
.scaled{background:var(--scaled)}.scaled.odd{background:var(--scaled2)}
i{font-style:normal;opacity:.45}.legend span{margin-right:1rem;padding:.15rem .5rem}.bad{color:var(--bad)}
"""


def to_html(rows: Sequence[PreviewRow], title: str = "What is trained") -> str:
    """One self-contained page; each token's id and weight are its tooltip."""
    legend = "".join(f'<span class="{name}">{html.escape(what)}</span>' for name, what in LEGEND)
    body = "".join(_html_row(row) for row in rows)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f'<body><h1>{html.escape(title)}</h1><p class="legend">{legend}</p>\n{body}</body></html>\n'
    )


def _html_row(row: PreviewRow) -> str:
    head = f"<h2>{html.escape(summary(row))}</h2>"
    if row.problem is not None:
        return f'{head}<p class="bad">{html.escape(row.problem)}</p>\n'
    pieces: list[str] = []
    shade = 0
    for number, token, weight in zip(row.ids, row.tokens, row.weights, strict=True):
        shown = html.escape(token).replace(" ", "<i>·</i>").replace("\t", "<i>→</i>\t").replace("\n", "<i>↵</i>\n")
        odd = " odd" if shade % 2 else ""
        shade += bool(token)
        pieces.append(f'<span class="{kind(weight)}{odd}" title="{number} · weight {weight:g}">{shown}</span>')
    # the newline after <pre> is dropped by browsers, a first one of the text would be, too
    return f"{head}<pre>\n{''.join(pieces)}</pre>\n"
