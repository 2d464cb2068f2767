"""What the tests of the data room share: files written for a test, and the project's real data where it is there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tuneloop.core.conversation import Drop, Example
from tuneloop.data.config import SourceConfig
from tuneloop.data.source import Recognition, recognise

SHARED = Path(__file__).resolve().parents[3] / "../shared/data"


@dataclass
class Loaded:
    """All rows of a source."""

    recognition: Recognition
    examples: list[Example]
    drops: list[Drop]
    notes: Counter[str]


def load_source(path: str, **options: Any) -> Loaded:
    """All rows of the file under these options of a source."""
    source = recognise(SourceConfig(path=path, **options), seed=1)
    notes: Counter[str] = Counter()
    rows = [row for part in source.parts for row in source.read(part, notes)]
    examples = [row for row in rows if isinstance(row, Example)]
    return Loaded(source.recognition, examples, [row for row in rows if isinstance(row, Drop)], notes)


@pytest.fixture
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the shared trial data is not on this machine")
    return SHARED.resolve()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """write("a.jsonl", rows or text or bytes) -> path."""

    def writer(name: str, content: list[Any] | str | bytes) -> str:
        path = tmp_path / name
        if isinstance(content, list):
            lines = [json.dumps(row, ensure_ascii=False) for row in content]
            content = "[" + ",\n".join(lines) + "]" if name.endswith(".json") else "\n".join(lines) + "\n"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return writer


@pytest.fixture
def loaded(write: Callable[..., str]) -> Callable[..., Loaded]:
    """loaded("a.jsonl", content, **source options) -> the source's rows."""

    return lambda name, content, **options: load_source(write(name, content), **options)


@pytest.fixture
def turns() -> Callable[[Example], list[tuple[str, str]]]:
    """(role, content) of each message."""
    return lambda example: [(message.role, message.content) for message in example.messages]
