"""Step `label_conflicts`: finds rows that answer the same question differently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeInt

from tuneloop.core.conversation import Example, JsonObject
from tuneloop.data.findings import finding
from tuneloop.data.stance import KINDS, SHORT_WORDS, Stance, question, question_key, said, stance
from tuneloop.data.steps import Rejection, Rows, SetStep, Verdict
from tuneloop.texts.words import normalise, remember

if TYPE_CHECKING:
    import numpy as np

    from tuneloop.data.conflicts import Disputes
    from tuneloop.data.near import Seen, View
    from tuneloop.data.steps import Keys

SHARED = 0.1
"""Text that stands in more than this share of the prompts is a template and makes no two of them near-same."""
_AT_ONCE = 500


class LabelConflicts(SetStep):
    """Finds rows with the same prompt, or nearly the same, whose labels or answers contradict one another.

    Contradictions are, in this order: other labels (`meta.label`); another concluded number ("#### 42", "答案是42", or
    the only number of a short answer); yes against no at the opening; another short answer or tool call; and longer
    answers that are equal but for their numbers or negations. Longer answers that merely differ are two good answers.
    Prompts count as the same only with the same numbers, negations, system messages and tools.
    """

    policy: Literal["report", "drop", "majority"] = "report"
    """report: all rows stay, the card lists them. drop: all rows of a conflict leave. majority: those stay that agree
    with more than half of the rows in their conflict; without a majority all leave."""
    near: float | None = Field(default=0.8, ge=0.5, le=1)
    """The Jaccard similarity of prompts (of shingles, as in `near_duplicates`; text that over 10 % of the prompts share
    is not compared) from which they count as nearly the same; null: only equal ones, up to case, width and spacing."""
    short_words: NonNegativeInt = SHORT_WORDS
    """Answers of at most so many words (a Chinese character is one) are choices, of which only one can be right; 0:
    compare labels, numbers and polarity only."""

    def keys(self, examples: Sequence[Example]) -> Keys:
        """Digests of the prompt and of what the answer commits itself to: 68 bytes a row, 197 with near prompts."""
        import numpy as np

        from tuneloop.data import forms, near

        asked = [message.content for one in examples for message in one.messages]
        remember(asked, forms.normalise(asked))  # in a tenth of the time of one by one, as they are asked for here
        stances = np.array([stance(one, self.short_words) for one in examples], np.uint64)
        stances = stances.reshape(-1, len(Stance._fields))  # of no rows as well
        texts, apart = [self._text(one) for one in examples], [str(question_key(one)) for one in examples]
        if self.near is None:
            return {**near.digests_of(texts, apart), "stance": stances}
        return {**near.keys_of(texts, [True] * len(texts), apart), "stance": stances}

    def decide(self, rows: Rows) -> Verdict:
        from tuneloop.data import conflicts

        if not len(rows):
            return Verdict()
        groups = self._groups(rows)
        found = conflicts.disputes(groups, rows.keys["stance"])
        if not len(found.rows):
            return Verdict()
        return Verdict(self._rejected(rows, found), findings=[self._finding(rows, found, groups)])

    def _groups(self, rows: Rows) -> np.ndarray:
        """For each row the first row that asks the same; -1 for an empty prompt."""
        import numpy as np

        from tuneloop.data import near

        if self.near is None:
            _, first, inverse = np.unique(rows.keys["text"], return_index=True, return_inverse=True)
            groups = first[inverse]
        else:
            reader = near.Reader(rows, self._views, near.shared_shingles(rows, self._views, SHARED))
            groups = near.search(rows.keys, self.near, reader, _same_question).same.groups()
        return np.where(rows.keys["length"] > 0, groups, -1)

    def _text(self, example: Example) -> str:
        return normalise(question(example))

    def _views(self, examples: Sequence[Example]) -> list[View]:
        from tuneloop.data.near import View

        return [View((self._text(one),), bare=True, more=question_key(one)) for one in examples]

    def _rejected(self, rows: Rows, found: Disputes) -> dict[int, Rejection]:
        if self.policy == "report":
            return {}
        leaving = [row for row in found.rows.tolist() if self.policy == "drop" or not found.majority[row]]
        text, out = rows.keys["text"], dict[int, Rejection]()
        for start in range(0, len(leaving), _AT_ONCE):
            part = leaving[start : start + _AT_ONCE]
            others = found.other[part].tolist()
            says = {row: said(one) for row, one in zip([*part, *others], rows.read([*part, *others]), strict=True)}
            for row, other in zip(part, others, strict=True):
                prompts = "equal" if text[row] == text[other] else "near-same"
                evidence = {
                    "kind": KINDS[found.kind[row]],
                    "prompts": prompts,
                    "says": says[row],
                    "other": {**rows.place(other), "says": says[other]},
                }
                out[row] = Rejection(f"contradicts another row whose prompt is {prompts}", evidence)
        return out

    def _finding(self, rows: Rows, found: Disputes, groups: np.ndarray) -> JsonObject:
        disputed = found.rows
        kinds = Counter(KINDS[kind] for kind in found.kind[disputed].tolist())
        shown: dict[int, int] = {}  # of each question one row, labels first
        for row in sorted(disputed.tolist(), key=lambda row: (found.kind[row], row)):
            shown.setdefault(int(groups[row]), row)
        examples: list[JsonObject] = []
        for row in list(shown.values())[:5]:
            pair = [row, int(found.other[row])]
            read = rows.read(pair)
            prompts = [" ".join(question(one).split())[:120] for one in read]
            examples.append(
                {
                    "kind": KINDS[found.kind[row]],
                    "rows": [
                        {**rows.place(index), "prompt": prompt, "says": said(one)}
                        for index, prompt, one in zip(pair, prompts, read, strict=True)
                    ],
                }
            )
        told = (
            f"{len(disputed):,} rows contradict another row with the same or nearly the same prompt "
            f"({', '.join(f'{kinds[kind]:,} by {kind}' for kind in KINDS if kinds[kind])}; {len(shown):,} questions)"
        )
        if self.policy == "report":
            told += "; they stay: correct them, or set label_conflicts.policy to majority or drop"
        return finding("WARN", "label_conflicts", len(disputed), told, questions=len(shown), examples=examples)


def _same_question(one: Seen, other: Seen, shared: int) -> bool:
    return one[1] == other[1]
