"""tool_calls: whether the model calls the expected tools with the expected arguments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tuneloop.core.conversation import ToolCall
from tuneloop.evaluate.metrics import Json, Metric, Observation, Score
from tuneloop.render.tool_calls import Read, canonical, read_tool_calls


class ToolCalls(Metric):
    """1 when the answer makes exactly the expected calls: the same names, and arguments that are equal as JSON values.

    The order of calls and of keys does not matter, texts are compared letter by letter. Calls are those that the engine
    gives apart, else they are read out of the text in the forms of Hermes, Qwen, GLM, Llama, Mistral and plain JSON.
    """

    BETTER = "higher"
    NEEDS = "generation"
    AGGREGATION = "proportion"
    REFERENCE = False

    arguments: bool = True
    """Compare arguments; else names alone."""
    ordered: bool = False
    """Several calls must come in the expected order."""
    restraint: bool = False
    """Also score rows that expect no call: 1 when there is none. Else they are unscored."""

    @property
    def signature(self) -> str:
        parts = [f"{name}:{'yes' if value else 'no'}" for name, value in self.model_dump().items()]
        return "|".join(["tool_calls", *sorted(parts), "json_values", "v1"])

    def score(self, observation: Observation) -> Score:
        why = self._inapplicable(observation)
        return Score(None, why) if why else Score(float(self._outcome(observation) == "right"))

    def details(self, observations: Sequence[Observation], scores: Sequence[Score]) -> Json | None:
        """{"kind": "counts", "counts"}: how many rows are right, or wrong in which way."""
        counts = Counter(self._outcome(one) for one in observations if not self._inapplicable(one))
        return {"kind": "counts", "counts": dict(counts.most_common())} if counts else None

    def _inapplicable(self, observation: Observation) -> str | None:
        if observation.text is None:
            return "no answer"
        if observation.expected is None:
            return "no expected answer"
        return None if observation.expected.tool_calls or self.restraint else "no tool call is expected"

    def _outcome(self, observation: Observation) -> str:
        assert observation.expected is not None and observation.text is not None
        expected = observation.expected.tool_calls
        read = Read(observation.text, observation.calls) if observation.calls else read_tool_calls(observation.text)
        if self._keys(read.calls, self.arguments) == self._keys(expected, self.arguments) and not read.broken:
            return "right"
        if read.broken:
            return "a call that cannot be read"
        if not expected or not read.calls:
            return "a call where none is expected" if read.calls else "no call"
        if self._keys(read.calls, False) != self._keys(expected, False):
            several = len(read.calls) != len(expected)
            return "too many or too few calls" if several else "another tool"
        return "other arguments"

    def _keys(self, calls: Sequence[ToolCall], arguments: bool) -> list[tuple[str, str]]:
        keys = [(call.name, canonical(_none_if_empty(call.arguments)) if arguments else "") for call in calls]
        return keys if self.ordered else sorted(keys)


def _none_if_empty(arguments: object) -> object:
    """No arguments are written as {}, null or an empty text."""
    return arguments or None if not isinstance(arguments, (int, float)) else arguments
