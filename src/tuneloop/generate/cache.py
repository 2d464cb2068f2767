"""Answers kept for the next run, so that an interrupted evaluation goes on where it was: any Engine, remembering.

What an answer follows from is its key: the engine's identity, conversation and tools, decoding, and of a sample its
seed. A damaged or locked file costs answers, never a run.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from tuneloop.core import digest
from tuneloop.core.conversation import ToolCall
from tuneloop.generate.engine import Completion, Decoding, Done, Engine, Request
from tuneloop.models import cache
from tuneloop.track import console

LIMIT = 1 << 30
"""Bytes of all kept answers; those of the engines that were not asked for longest go first."""
FILE = "answers.sqlite"
FORMAT = 1
SCHEMA = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value TEXT, proof TEXT) WITHOUT ROWID"


class CachedEngine:
    """`engine`, asked only what it was not asked before; one without identity (in training) is always asked.

    Refusals are not kept: a server may have been told better since.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def identity(self) -> str:
        return self._engine.identity

    def answer(self, requests: Sequence[Request], decoding: Decoding, done: Done | None = None) -> list[Completion]:
        """As Engine.answer; says how many answers were known. Known ones are done first."""
        identity = self.identity
        if not identity:
            return self._engine.answer(requests, decoding, done)
        keys = [_key(request, decoding) for request in requests]
        completions: dict[int, Completion] = {}

        def found(place: int, completion: Completion) -> None:
            completions[place] = completion
            if done is not None:
                done(place, completion)

        with _opened(cache.root() / "answers" / digest.short(digest.of_value([FORMAT, identity]), 32)) as kept:
            for place, key in enumerate(keys):
                known = kept.get(key)
                if known is not None:
                    found(place, known)
            if completions:
                say = f"{len(completions)} of {len(requests)} were given before, by the same model to the same prompts"
                console.decided("answers", f"{say}; `evaluate.cache: false` asks anew")
            places = [place for place in range(len(requests)) if place not in completions]

            def came(index: int, completion: Completion) -> None:
                kept.put(keys[places[index]], completion)
                found(places[index], completion)

            self._engine.answer([requests[place] for place in places], decoding, came)
        return [completions[place] for place in range(len(requests))]


def _key(request: Request, decoding: Decoding) -> str:
    sampled = [decoding.temperature, decoding.top_p, decoding.top_k, request.seed] if decoding.temperature else None
    said = [message.to_json() for message in request.messages]
    return digest.short(digest.of_value([said, list(request.tools), decoding.max_new_tokens, sampled]), 32)


class _Answers:
    """The answers of one engine; without a file (`None`) it knows nothing and keeps nothing."""

    def __init__(self, file: sqlite3.Connection | None) -> None:
        self._file = file

    def get(self, key: str) -> Completion | None:
        """The answer, if it is there and as it was written."""
        try:
            row = self._file and self._file.execute("SELECT value, proof FROM answers WHERE key = ?", [key]).fetchone()
        except sqlite3.Error as error:
            return self._give_up(error)
        if not row or row[1] != _proof(key, row[0]):
            return None
        value = json.loads(row[0])
        calls = tuple(ToolCall(**call) for call in value["calls"])
        return Completion(tuple(value["ids"]), value["text"], value["finished"], calls=calls, known=True)

    def put(self, key: str, completion: Completion) -> None:
        """Written at once: a run that is killed later finds it again."""
        if self._file is None or completion.refused is not None:
            return
        calls = [{"name": call.name, "arguments": call.arguments, "id": call.id} for call in completion.calls]
        value = json.dumps(
            {"ids": completion.ids, "text": completion.text, "finished": completion.finished, "calls": calls}
        )
        try:
            self._file.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", [key, value, _proof(key, value)])
        except sqlite3.Error as error:
            self._give_up(error)

    def _give_up(self, error: sqlite3.Error) -> None:
        """A full disk, a damaged page, a process that holds the lock: go on without."""
        console.decided("answers", f"are not kept any more, the cache does not work ({error})")
        assert self._file is not None
        self._file.close()
        self._file = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _proof(key: str, value: str) -> str:
    """A flipped bit on the disk must not become an answer."""
    return digest.short(digest.of_texts([key, value]), 16)


@contextmanager
def _opened(folder: Path) -> Iterator[_Answers]:
    """The answers in a folder, made where there is none and made anew where it is damaged."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)  # used now
        cache.make_room(folder.parent, LIMIT, spared=folder)
        try:
            file = _connect(folder / FILE)
        except sqlite3.OperationalError:  # locked, or no space: not damaged
            raise
        except sqlite3.DatabaseError:
            shutil.rmtree(folder)
            folder.mkdir()
            file = _connect(folder / FILE)
    except (OSError, sqlite3.Error) as error:
        console.decided("answers", f"are not kept, the cache cannot be used ({error})")
        file = None
    with closing(_Answers(file)) as answers:
        yield answers


def _connect(path: Path) -> sqlite3.Connection:
    file = sqlite3.connect(path, timeout=10, isolation_level=None)
    try:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")  # whole after a kill; a power cut may cost the last answers
        file.execute(SCHEMA)
    except sqlite3.Error:
        file.close()
        raise
    return file
