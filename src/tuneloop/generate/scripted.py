"""An Engine whose answers are written by hand, for tests: no model, no arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tuneloop.generate.engine import Completion, Decoding, Done, Request


class ScriptedEngine:
    """Answers by a function of the request; None is refused. An answer's tokens are its characters."""

    def __init__(self, answer: Callable[[Request], str | None], identity: str = "scripted") -> None:
        self._answer, self.identity = answer, identity
        self.asked: list[Request] = []
        """All requests so far."""

    def answer(self, requests: Sequence[Request], decoding: Decoding, done: Done | None = None) -> list[Completion]:
        """As Engine.answer; longer than `max_new_tokens` characters is cut."""
        completions: list[Completion] = []
        for place, request in enumerate(requests):
            self.asked.append(request)
            text = self._answer(request)
            if text is None:
                completions.append(Completion((), "", False, refused="the script has no answer"))
            else:
                kept = text[: decoding.max_new_tokens]
                completions.append(Completion(tuple(map(ord, kept)), kept, kept == text))
            if done is not None:
                done(place, completions[-1])
        return completions
