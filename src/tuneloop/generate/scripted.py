"""An Engine whose answers are written by hand, for tests: no model, no arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from tuneloop.generate.engine import Completion, Progress


class ScriptedEngine:
    """Answers by a function of the prompt's ids that gives the new ids, stop token included where there is one."""

    def __init__(
        self, answer: Callable[[tuple[int, ...]], Sequence[int]], decode: Callable[[Sequence[int]], str]
    ) -> None:
        self.answer, self.decode = answer, decode
        self.asked: list[tuple[int, ...]] = []
        """All prompts so far."""

    def complete(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stop_ids: Collection[int],
        progress: Progress | None = None,
    ) -> list[Completion]:
        """As Engine.complete."""
        completions: list[Completion] = []
        for prompt in prompts:
            self.asked.append(tuple(prompt))
            ids = list(self.answer(tuple(prompt)))[:max_new_tokens]
            stop = next((place for place, id in enumerate(ids) if id in stop_ids), None)
            kept = ids[:stop]
            completions.append(Completion(tuple(kept), self.decode(kept), stop is not None))
            if progress is not None:
                progress(1)
        return completions
