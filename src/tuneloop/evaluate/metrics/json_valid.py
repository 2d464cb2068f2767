"""json_valid: whether the answer is JSON, and JSON of the right shape."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pydantic import field_validator

from tuneloop.core import digest, jsonl
from tuneloop.evaluate.metrics import Json, Metric, Observation, Score
from tuneloop.evaluate.schemas import problem_with, validator_of

_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*?)\n?[ \t]*```", re.S)


class JsonValid(Metric):
    """1 when the answer is one JSON value, and fits the JSON Schema where there is one: the recipe's, else the row's.

    Strict JSON: NaN and comments are none. Schemas are of any draft (by `$schema`, else 2020-12); they cannot refer to
    files or the network, and `format` does not count.
    """

    BETTER = "higher"
    NEEDS = "generation"
    AGGREGATION = "proportion"
    REFERENCE = False

    json_schema: dict[str, Any] | None = None
    """The schema of all answers; null takes the row's."""
    column: str = "schema"
    """The column with the row's own schema (an object, or JSON as text); rows without one need any valid JSON."""
    fenced: bool = True
    """One fenced block (```json) within the answer may hold the JSON; else the whole answer must be it."""

    @field_validator("json_schema")
    @classmethod
    def _is_schema(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        if schema is not None:
            validator_of(json.dumps(schema))
        return schema

    @property
    def signature(self) -> str:
        what = f"column:{self.column}" if self.json_schema is None else digest.short(digest.of_value(self.json_schema))
        return f"json_valid|schema:{what}|fenced:{'yes' if self.fenced else 'no'}|format:ignored|v1"

    def score(self, observation: Observation) -> Score:
        if observation.text is None:
            return Score(None, "no answer")
        try:
            return Score(float(self._problem(observation) is None))
        except ValueError as error:
            return Score(None, str(error))

    def details(self, observations: Sequence[Observation], scores: Sequence[Score]) -> Json | None:
        """{"kind": "counts", "counts"}: how many answers are right, or wrong in which way."""
        wrong = Counter(
            "right" if score.value else self._problem(one) or ""
            for one, score in zip(observations, scores, strict=True)
            if score.value is not None
        )
        return {"kind": "counts", "counts": dict(wrong.most_common(20))} if wrong else None

    def _problem(self, observation: Observation) -> str | None:
        """What is wrong with the answer. Raises ValueError where the schema cannot be used."""
        schema = self.json_schema if self.json_schema is not None else observation.meta.get(self.column)
        text = (observation.text or "").strip()
        blocks = _FENCED.findall(text) if self.fenced else []
        parsed = _parse(blocks[0] if len(blocks) == 1 else text)
        if isinstance(parsed, str):
            return parsed
        if schema in (None, ""):
            return None
        return problem_with(schema if isinstance(schema, str) else json.dumps(schema), parsed[0])


def _parse(text: str) -> tuple[Any] | str:
    try:
        return (jsonl.parse(text),)
    except (ValueError, RecursionError):
        return "no JSON" if text else "empty"
