"""The rows of `tune.objective.keep`: any file that data.sources can read, answered or not, or the embedded probes."""

from __future__ import annotations

from pathlib import Path

from tuneloop.core.conversation import Example, JsonObject, Message, Origin
from tuneloop.core.errors import DataError
from tuneloop.data.formats import FORMATS, Parts, RowError
from tuneloop.data.read import input_files, open_source
from tuneloop.data.turns import PROMPTS, RESPONSES, text_of
from tuneloop.evaluate.probes import read_probes

READ = ("messages", "sharegpt", "preference", "alpaca", "text")


def load_prompts(path: str) -> list[Example]:
    """The rows of a file, or of `embedded`. Raises DataError for a row that is neither a text nor a conversation."""
    if path == "embedded":
        return read_probes(path)
    found: list[Example] = []
    for number, record in enumerate(open_source(path).records()):
        try:
            parts = _parts(record)
        except RowError as error:
            raise DataError(f"{path}, row {number}: no prompt to keep to: {error.reason}") from error
        found.append(Example(parts.messages, Origin(path, number), parts.tools))
    return found


def prompt_files(path: str) -> list[Path]:
    """The files whose bytes decide what the rows are."""
    return [] if path == "embedded" else input_files(path)


def _parts(record: JsonObject) -> Parts:
    for name in READ:
        reader = FORMATS.make(name)
        if reader.likeness(record) >= 0.8:
            return reader.parse(record)
    lower = {str(column).strip().lower(): column for column in reversed(record)}
    asked = next((lower[name] for name in PROMPTS if name in lower), None)
    if asked is None:
        raise RowError(f"it has no text, messages or column called {', '.join(PROMPTS[:3])} …")
    messages = [Message("user", text_of(record[asked], asked))]
    answer = next((lower[name] for name in RESPONSES if name in lower and record[lower[name]] not in (None, "")), None)
    if answer is not None:
        messages.append(Message("assistant", text_of(record[answer], answer)))
    return Parts(tuple(messages))
