"""What leaves texts before they are written: private data, by the guard room's rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from tuneloop.core.conversation import Message
from tuneloop.core.plugins import Branch
from tuneloop.guard import pii
from tuneloop.guard.documents import Kinds, Rewriting, texts_of
from tuneloop.guard.rules import RULES, Strength
from tuneloop.store.records import Feedback, Interaction


class Redaction(Branch):
    """Private data that is masked in questions, answers and votes before they are written (docs/privacy.md).

    A value that is found once in an answer's conversation is masked in all of it.
    """

    kinds: Kinds = None
    """Only these kinds, e.g. [phone, email, cn_id]; all if not given. `tuneloop list rules` lists them."""
    strength: Strength = "strong"
    """strong: what form, check digit, valid range or a word in front confirm. weak: hints too, such as names after a
    title, addresses, dates and passwords; many of them are harmless."""

    @property
    def ran(self) -> str:
        """The rules and their strength, as records say it: `strong: email phone`."""
        return _ran(None if self.kinds is None else tuple(self.kinds), self.strength)

    def interaction(self, one: Interaction) -> Interaction:
        """The answer with its conversation masked."""
        answer = Message("assistant", one.answer, tool_calls=one.calls)
        *prompt, answer = self._masked([*one.prompt, answer])
        changes = {"prompt": tuple(prompt), "answer": answer.content, "calls": answer.tool_calls}
        return replace(one, **changes, redaction=self.ran)

    def feedback(self, one: Feedback) -> Feedback:
        """The vote with correction, comment and tags masked."""
        texts = [Message("text", text) for text in (one.corrected or "", one.comment or "", *one.tags)]
        corrected, comment, *tags = [message.content for message in self._masked(texts)]
        changes = {"corrected": corrected or one.corrected, "comment": comment or one.comment, "tags": tuple(tags)}
        return replace(one, **changes, redaction=self.ran)

    def _masked(self, messages: Sequence[Message]) -> Sequence[Message]:
        if not pii.may_hold("\n".join(text for one in messages for text in texts_of(one)), self.strength):
            return messages
        first = Rewriting(self.kinds, self.strength)
        for one in messages:
            first.message("", one)
        second = Rewriting(self.kinds, self.strength, known=[found for _, found in first.found])
        return [second.message("", one) for one in messages] if first.found else messages


@cache  # to ask for the names of a family takes milliseconds: packages may bring more
def _ran(kinds: tuple[str, ...] | None, strength: Strength) -> str:
    named = sorted(RULES.names() if kinds is None else kinds)
    running = [kind for kind in named if strength == "weak" or RULES.make(kind).STRONGEST == "strong"]
    return f"{strength}: {' '.join(running)}"
