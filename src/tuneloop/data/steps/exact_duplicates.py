"""Step `exact_duplicates`: keeps the first of the rows that say the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuneloop.core.conversation import Example
from tuneloop.data.findings import finding
from tuneloop.data.stance import hash_of
from tuneloop.data.steps import Rejection, Rows, SetStep, Verdict

if TYPE_CHECKING:
    from tuneloop.data.steps import Keys

REASON = "says the same as an earlier row"


class ExactDuplicates(SetStep):
    """Drops all but the first of rows with the same conversation.

    Compared are messages, loss weights and tools after NFKC, case folding and collapsing of whitespace; never ids,
    labels or other columns, which would hide duplicates. Where labels differ, a finding says so.
    """

    def keys(self, examples: Sequence[Example]) -> Keys:
        """24 bytes a row: the digest of what the row says, in two halves, and that of its label (0 for none)."""
        import numpy as np

        from tuneloop.data.forms import content_keys

        digests = np.frombuffer(b"".join(content_keys(examples)), "<u8").reshape(-1, 2)
        labels = [hash_of(str(label)) if (label := example.meta.get("label")) else 0 for example in examples]
        return {"low": digests[:, 0], "high": digests[:, 1], "label": np.array(labels, np.uint64)}

    def decide(self, rows: Rows) -> Verdict:
        import numpy as np

        if not len(rows):
            return Verdict()
        low, high, label = rows.keys["low"], rows.keys["high"], rows.keys["label"]
        order = np.lexsort((low, high))  # stable: the first of each run of equal digests is the first row
        fresh = np.ones(len(order), bool)
        fresh[1:] = (low[order[1:]] != low[order[:-1]]) | (high[order[1:]] != high[order[:-1]])
        first = np.empty(len(order), np.int64)
        first[order] = order[np.maximum.accumulate(np.where(fresh, np.arange(len(order)), 0))]
        copies = np.flatnonzero(first != np.arange(len(first)))
        rejected = {row: Rejection(REASON, _kept(rows, int(first[row]))) for row in copies.tolist()}
        unlike = copies[(label[copies] != label[first[copies]]) & (label[copies] > 0) & (label[first[copies]] > 0)]
        if not len(unlike):
            return Verdict(rejected)
        pairs = [{"kept": rows.place(int(first[row])), "dropped": rows.place(row)} for row in unlike[:5].tolist()]
        told = (
            f"{len(unlike):,} rows say the same as an earlier row but have another label; the earlier label stays. "
            "Put label_conflicts before exact_duplicates to decide otherwise"
        )
        return Verdict(rejected, findings=[finding("WARN", "labels_of_duplicates", len(unlike), told, examples=pairs)])


def _kept(rows: Rows, row: int) -> dict[str, object]:
    place = rows.place(row)
    return {"kept": place["id"], "origin": place["origin"]}
