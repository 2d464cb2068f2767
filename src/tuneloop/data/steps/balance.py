"""Step `balance`: makes labels, languages or lengths weigh alike, by leaving rows out or by repeating them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt, model_validator

from tuneloop.core.conversation import Example, JsonObject
from tuneloop.data.findings import finding
from tuneloop.data.stance import hash_of
from tuneloop.data.steps import Rejection, Rows, SetStep, Verdict
from tuneloop.texts.words import count_words, script_of, spoken

if TYPE_CHECKING:
    import numpy as np

    from tuneloop.data.steps import Keys

LENGTHS = ("short", "medium", "long")


class Balance(SetStep):
    """Brings groups of rows (by label, language or length) to about the same size.

    Which rows stay, or come more often, is decided by the digest of each row's content: as if by chance, but without a
    seed, and nearly the same rows when others are added. Repeated rows are repeated in train only.
    """

    by: Literal["label", "language", "length"] = "label"
    """label: the column `label`, two-level labels as a whole; rows without one stay as they are. language: the column
    `language`, and rows without one stay as they are; where no row has it, the writing (zh, ja, ko, latin, other).
    length: short, medium or long."""
    method: Literal["cap", "oversample", "both"] = "cap"
    """cap: larger groups lose rows; oversample: rows of smaller groups come several times; both: all groups change."""
    to: Literal["smallest", "median", "largest"] | PositiveInt = "median"
    """The size to reach: that of a group (of an even number of groups the lower middle one is the median), or rows."""
    max_repeats: PositiveInt = 10
    """How often a row may come at most: a handful of rows, repeated without end, is learnt by heart."""
    lengths: tuple[PositiveInt, PositiveInt] = (50, 300)
    """Most words (a Chinese character is one) of a short and of a medium conversation, system messages not counted."""

    @model_validator(mode="after")
    def _does_something(self) -> Balance:
        if (self.method, self.to) in (("cap", "largest"), ("oversample", "smallest")):
            raise ValueError(f"{self.method} to {self.to} changes nothing; take another size or method")
        if self.lengths[0] >= self.lengths[1]:
            raise ValueError(f"lengths {list(self.lengths)}: the first limit must be below the second")
        return self

    def keys(self, examples: Sequence[Example]) -> Keys:
        """17 bytes a row: its group's digest (0 for none); whether that is only the writing, for want of the column
        `language`; and a digest of its content by which rows are chosen."""
        import numpy as np

        names = [self._group(example) for example in examples]
        return {
            "group": np.array([hash_of(name) if name else 0 for name in names], np.uint64),
            "written": np.array([self.by == "language" and not _language(example) for example in examples], bool),
            "lot": np.array([hash_of(f"balance {example.id}") for example in examples], np.uint64),
        }

    def decide(self, rows: Rows) -> Verdict:
        import numpy as np

        if not len(rows):
            return Verdict()
        groups, written = rows.keys["group"], rows.keys["written"]
        if not written.all():  # a few rows in which the step `language` found none are no group beside languages
            groups = np.where(written, np.uint64(0), groups)
        values, sizes = np.unique(groups, return_counts=True)
        sizes = {int(value): int(size) for value, size in zip(values, sizes, strict=True) if value}
        if len(sizes) < (1 if isinstance(self.to, int) else 2):
            told = f"nothing to balance: the rows have {len(sizes) or 'no'} {self.by}{'' if len(sizes) == 1 else 's'}"
            advice = "leave the step out" + (", or name a `label` in the source's columns" * (self.by == "label"))
            return Verdict(findings=[finding("WARN", "not_balanced", len(rows), told, next=advice)])
        size = self._size(sizes)
        rejected, repeats, told = dict[int, Rejection](), dict[int, int](), list[JsonObject]()
        for value, count in sizes.items():
            members = np.flatnonzero(groups == value)
            members = members[np.lexsort((members, rows.keys["lot"][members]))]
            name = self._group(rows.read([int(members.min())])[0])
            after = count
            if count > size and self.method != "oversample":
                after = size
                evidence = {"group": name, "rows": count, "kept": size}
                reason = f"more rows of this {self.by} than balance keeps"
                rejected |= {row: Rejection(reason, evidence) for row in members[size:].tolist()}
            elif count < size and self.method != "cap":
                after = min(size, count * self.max_repeats)
                repeats |= _repeats(members, after)
            told.append({"group": name, "before": count, "after": after, "largest_repeat": -(-after // count)})
        return Verdict(rejected, repeats=repeats, findings=self._findings(told, size, int((groups == 0).sum())))

    def _group(self, example: Example) -> str:
        if self.by == "label":
            return str(example.meta.get("label") or "")
        texts = [spoken(message) for message in example.messages if message.role != "system"]
        if self.by == "language":
            return _language(example) or script_of("\n".join(texts))
        words = sum(map(count_words, texts))
        return LENGTHS[sum(words > limit for limit in self.lengths)]

    def _size(self, sizes: dict[int, int]) -> int:
        if isinstance(self.to, int):
            return self.to
        choose = {"smallest": min, "largest": max, "median": statistics.median_low}[self.to]
        return int(choose(sizes.values()))

    def _findings(self, told: list[JsonObject], size: int, without: int) -> list[JsonObject]:
        told.sort(key=lambda group: (-group["before"], group["group"]))
        shown = ", ".join(f"{one['group']} {one['before']:,} → {one['after']:,}" for one in told[:8])
        more = f" and {len(told) - 8} more" if len(told) > 8 else ""
        out = [finding("INFO", "balanced", len(told), f"by {self.by}: {shown}{more}", groups=told[:100])]
        short = [one for one in told if one["after"] < size and self.method != "cap"]
        if short:
            names = ", ".join(str(one["group"]) for one in short[:8])
            message = f"{self.max_repeats} repeats a row do not bring {names} to {size:,} rows"
            advice = "gather more rows of these, or set `to` lower"
            out.append(finding("WARN", "too_few_to_balance", len(short), message, next=advice))
        if without:
            message = f"{without:,} rows without a {self.by} stay as they are"
            out.append(finding("INFO", f"without_{self.by}", without, message))
        return out


def _language(example: Example) -> str:
    return str(example.meta.get("language") or "")


def _repeats(members: np.ndarray, total: int) -> dict[int, int]:
    """How often each row comes, so that all together come `total` times: once more for the first ones."""
    each, extra = divmod(total, len(members))
    counts = {row: each + (position < extra) for position, row in enumerate(members.tolist())}
    return {row: count for row, count in counts.items() if count != 1}
