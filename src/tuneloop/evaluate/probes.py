"""Files of probes: what a model may know or be able to do, as Examples. Knows nothing of models and scores."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from tuneloop.core import jsonl
from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.core.errors import DataError

LONGEST = (
    1_000  # characters of a passage: it must fit the context of a small model, and many short ones make an interval
)
KNOWN_AS = ("prompt", "question", "text", "messages", "answer")
ACCEPTED = "accepted"
"""The column (of `meta`) with all answers that count as right, where a row gives several."""


def read_probes(path: str) -> list[Example]:
    """The rows of a probe file, or of `embedded`; a row without an answer is a text or a question alone.

    Raises DataError for a missing file, a corrupt line, or a row that is no probe.
    """
    if path == "embedded":
        with resources.as_file(resources.files("tuneloop.models") / "embedded" / "probes.jsonl") as file:
            return _read(file, "the embedded base has no probes.jsonl; `make base` builds it")
    return _read(Path(path), "set evaluate.forgetting.probes to a .jsonl or .txt file, or to `embedded`")


def is_text(example: Example) -> bool:
    """Whether it is a passage to be read, with nothing to answer."""
    return len(example.messages) == 1 and example.messages[0].role == "text" and example.messages[0].weight > 0


def is_prose(example: Example) -> bool:
    """Whether it is written outside any chat."""
    return all(message.role == "text" for message in example.messages)


def has_answer(example: Example) -> bool:
    """Whether something stands there that an answer can be held against."""
    last = example.messages[-1]
    return len(example.messages) > 1 and last.weight > 0 and bool(last.content.strip())


def accepted(example: Example) -> list[str]:
    """All answers that count as right, the reference first."""
    return [answer.strip() for answer in example.meta.get(ACCEPTED) or [example.answer.content]]


def asked(example: Example) -> str:
    """What is asked, as text for a list."""
    return "\n".join(message.content for message in (example.prompt if has_answer(example) else example.messages))


def _read(path: Path, advice: str) -> list[Example]:
    if not path.is_file():
        raise DataError(f"{path}: no such file of probes; {advice}")
    if path.suffix == ".jsonl":
        probes = [_probe(row, path, number) for number, row in enumerate(jsonl.read_lines(path))]
    elif path.suffix in (".txt", ".md"):
        probes = [
            Example((Message("text", passage, train=1.0),), Origin(str(path), number))
            for number, passage in enumerate(_passages(path))
        ]
    else:
        raise DataError(f"{path}: probes are a .jsonl file or a .txt file of passages, not {path.suffix or 'this'}")
    if not probes:
        raise DataError(f"{path}: holds no probes; {advice}")
    return probes


def _probe(row: Mapping[str, Any], path: Path, number: int) -> Example:
    place = f"{path}: row {number}"
    meta = {key: value for key, value in row.items() if key not in KNOWN_AS}
    if "messages" in row:
        if "origin" in row:
            return Example.from_json(row)
        try:
            messages = tuple(Message.from_json(message) for message in row["messages"])
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{place}: messages are a list of {{role, content}} ({error!r})") from error
        if not messages:
            raise DataError(f"{place}: no messages")
        return Example(messages, Origin(str(path), number), meta=meta)
    given = [key for key in ("prompt", "question", "text") if key in row]
    if len(given) != 1 or not isinstance(row[given[0]], str) or not row[given[0]].strip():
        needed = "exactly one of `prompt` (prose to go on with), `question` (for a chat) and `text`"
        raise DataError(f"{place}: a probe needs {needed}, a text that is not empty; found: {', '.join(sorted(row))}")
    asked = row[given[0]]
    if given == ["text"]:
        return Example((Message("text", asked, train=1.0),), Origin(str(path), number), meta=meta)
    roles = ("text", "text") if given == ["prompt"] else ("user", "assistant")
    answers = row.get("answer")
    several = answers if isinstance(answers, list) else [answers]
    if "answer" in row and (not several or not all(isinstance(one, str) and one.strip() for one in several)):
        raise DataError(f"{place}: `answer` is a text that is not empty, or a list of such texts")
    question = Message(roles[0], asked, train=0.0)  # type: ignore[arg-type]
    if "answer" not in row:
        return Example((question,), Origin(str(path), number), meta=meta)
    if len(several) > 1:
        meta[ACCEPTED] = several
    answer = Message(roles[1], several[0], train=1.0)  # type: ignore[arg-type]
    return Example((question, answer), Origin(str(path), number), meta=meta)


def _passages(path: Path) -> Iterator[str]:
    """What stands between blank lines, long passages in pieces."""
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: a text must be UTF-8 ({error})") from error
    for passage in re.split(r"\n\s*\n", text):
        rest = passage.strip()
        while len(rest) > LONGEST:
            ends = [found.end() for found in re.finditer(r"[。！？；\n]|[.!?;]\s|\s", rest[:LONGEST])]
            end = next((end for end in reversed(ends) if end > LONGEST // 2), LONGEST)
            yield rest[:end].strip()
            rest = rest[end:].strip()
        if rest:
            yield rest
