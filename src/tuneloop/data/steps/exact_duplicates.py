"""Step `exact_duplicates`: keeps the first of the Examples that say the same."""

from __future__ import annotations

from collections.abc import Sequence

from tuneloop.core.conversation import Example
from tuneloop.data.steps import Rejected, Sieved, Step
from tuneloop.data.words import content_key


class ExactDuplicates(Step):
    """Drops all but the first of rows with the same conversation.

    Compared are messages, loss weights and tools after NFKC, case folding and collapsing of whitespace; never ids,
    labels or other columns, which would hide duplicates.
    """

    def apply(self, examples: Sequence[Example]) -> Sieved:
        first: dict[bytes, Example] = {}
        rejected: list[Rejected] = []
        for example in examples:
            same = first.setdefault(content_key(example), example)
            if same is not example:
                evidence = {"kept": same.id, "origin": same.origin.to_json()}
                rejected.append(Rejected(example, "says the same as an earlier row", evidence))
        return Sieved(list(first.values()), rejected)
