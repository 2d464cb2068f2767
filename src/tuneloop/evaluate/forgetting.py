"""What tuning cost: facts that the base completes in prose, asked again of the tuned model, pair by pair."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from tuneloop.core import jsonl
from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.core.errors import DataError
from tuneloop.evaluate.config import ForgettingConfig
from tuneloop.evaluate.contestant import Answer
from tuneloop.evaluate.metrics import Score
from tuneloop.evaluate.scoring import PROPORTION, compare, groups, picked
from tuneloop.evaluate.text import has_unspaced

SIGNATURE = "completion|greedy|strip|starts_with_answer|as_a_whole_word|v1"
SLICES = ("kind", "group", "language")


def load_probes(config: ForgettingConfig) -> list[Example]:
    """The probes as Examples: a text message to complete and one with the answer.

    Raises DataError for a missing file, a corrupt line, or a row that is no probe.
    """
    if config.probes == "embedded":
        with resources.as_file(resources.files("tuneloop.models") / "embedded" / "probes.jsonl") as path:
            return _read(path, "the embedded base has no probes.jsonl; `make base` builds it")
    return _read(Path(config.probes), "set evaluate.forgetting.probes to a JSONL file, or to `embedded`")


def _read(path: Path, advice: str) -> list[Example]:
    if not path.is_file():
        raise DataError(f"{path}: no such file of probes; {advice}")
    probes = [_probe(row, path, number) for number, row in enumerate(jsonl.read_lines(path))]
    if not probes:
        raise DataError(f"{path}: holds no probes; {advice}")
    return probes


def _probe(row: Mapping[str, Any], path: Path, number: int) -> Example:
    if "messages" in row:
        example = Example.from_json(row)
        if len(example.messages) < 2 or not example.answer.content.strip():
            raise DataError(f"{path}: row {number}: a probe is a text to complete and its answer")
        return example
    prompt, answer = row.get("prompt"), row.get("answer")
    if not isinstance(prompt, str) or not isinstance(answer, str) or not prompt or not answer.strip():
        raise DataError(f"{path}: row {number}: a probe needs the texts `prompt` and `answer`, found: {sorted(row)}")
    meta = {key: value for key, value in row.items() if key not in ("prompt", "answer")}
    messages = (Message("text", prompt, train=0.0), Message("text", answer, train=1.0))
    return Example(messages, Origin(str(path), number), meta=meta)


def is_right(completion: str, answer: str) -> bool:
    """Whether a completion begins with the answer as a whole: what follows does not go on with its last word.

    A word goes on with letters, digits and underscores, a number with decimals too. Chinese and Japanese characters
    end a word and go on with none: after 巴黎 and before 岁 anything may stand.
    """
    completion, answer = completion.strip(), answer.strip()
    if not completion.startswith(answer):
        return False
    rest = completion[len(answer) :]
    if not rest or has_unspaced(answer[-1]) or has_unspaced(rest[0]):
        return True
    decimals = answer[-1].isdigit() and re.match(r"[.,]\d", rest)
    return not (rest[0].isalnum() or rest[0] == "_" or decimals)


def forgetting_report(
    name: str, probes: Sequence[Example], answers: Mapping[str, Sequence[Answer]], confidence: float
) -> dict[str, Any]:
    """The `forgetting` part of report.json: numbers over all, by kind, group and language, and what changed."""
    scores = {
        who: [_score(answer, probe.answer.content) for answer, probe in zip(given, probes, strict=True)]
        for who, given in answers.items()
    }
    metas = [probe.meta for probe in probes]
    out: dict[str, Any] = {"probes": name, "better": "higher", "signature": SIGNATURE}
    out |= compare(PROPORTION, scores, confidence)
    out["slices"] = {
        key: {value: compare(PROPORTION, picked(scores, rows), confidence) for value, rows in found.items()}
        for key in SLICES
        if len(found := groups(metas, key)) > 1
    }
    if "base" in scores and "tuned" in scores:
        changes = [
            (score.value, scores["tuned"][index].value, _line(probes[index], answers, index))
            for index, score in enumerate(scores["base"])
        ]
        out["lost"] = [line for before, after, line in changes if before == 1 and after == 0]
        out["won"] = [line for before, after, line in changes if before == 0 and after == 1]
    return out


def _score(answer: Answer, expected: str) -> Score:
    return Score(None, answer.why) if answer.text is None else Score(float(is_right(answer.text, expected)))


def _line(probe: Example, answers: Mapping[str, Sequence[Answer]], index: int) -> dict[str, Any]:
    said = {who: given[index].text for who, given in answers.items()}
    prompt = "".join(message.content for message in probe.prompt)
    where = {key: probe.meta[key] for key in SLICES if key in probe.meta}
    return {"id": probe.id, "prompt": prompt, "answer": probe.answer.content.strip(), **said, **where}
