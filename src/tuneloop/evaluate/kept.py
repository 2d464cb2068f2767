"""What one model did with a set of probes, kept for the next run, so that an interrupted scan goes on where it was.

The key is the model's identity and all that was asked. A damaged file costs an asking, never a run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tuneloop import __version__
from tuneloop.core import digest, jsonl
from tuneloop.core.conversation import ToolCall
from tuneloop.evaluate.contestant import Answer, Likelihood
from tuneloop.evaluate.metrics import Choice
from tuneloop.evaluate.observing import Observed
from tuneloop.models import cache
from tuneloop.track import console

LIMIT = 256 << 20
"""Bytes of all that is kept; what belongs to the models that were not asked for longest goes first."""
Parts = Sequence[tuple[float, int]]
"""Of each neutral prompt the divergence in nats and its positions, as `Drift` has them."""


class Kept:
    """The memory of one model's scores; a model without identity (it still changes) has none."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.hits = 0
        if not identity:
            return
        self._folder = cache.root() / "probed" / digest.short(digest.of_value([__version__, identity]), 32)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            os.utime(self._folder)  # used now
            cache.make_room(self._folder.parent, LIMIT, spared=self._folder)
        except OSError as error:
            self._give_up(error)

    def observed(self, asked: object) -> Observed | None:
        """What the model did when it was asked this before."""
        value = self._get(["observed", asked])
        if value is None:
            return None
        answers = [Answer(**{**one, "calls": tuple(ToolCall(**call) for call in one["calls"])}) for one in value["a"]]
        choices = [one if isinstance(one, str) else [Choice(**choice) for choice in one] for one in value["c"]]
        return Observed(answers, [Likelihood(**one) for one in value["l"]], choices)

    def keep_observed(self, asked: object, seen: Observed) -> None:
        """Sampled answers and seconds are not kept: probes are answered once."""
        choices = [one if isinstance(one, str) else list(map(asdict, one)) for one in seen.choices]
        value = {"a": list(map(asdict, seen.answers)), "l": list(map(asdict, seen.likelihoods)), "c": choices}
        self._put(["observed", asked], value)

    def parts(self, asked: object, base: Kept) -> Parts | None:
        """How far the model was from this base on these neutral prompts."""
        value = self._get(["drift", base.identity, asked]) if base.identity else None
        return None if value is None else [(total, count) for total, count in value]

    def keep_parts(self, asked: object, base: Kept, parts: Parts) -> None:
        if base.identity:
            self._put(["drift", base.identity, asked], parts)

    def _get(self, key: object) -> Any:
        if not self.identity:
            return None
        name = digest.short(digest.of_value(key), 32)
        try:
            proof, _, text = (self._folder / f"{name}.txt").read_text("utf-8").partition("\n")
        except (FileNotFoundError, UnicodeDecodeError):
            return None
        except OSError as error:
            return self._give_up(error)
        if proof != _proof(name, text):
            return None
        self.hits += 1
        return json.loads(text)  # not strict: a likelihood may be infinite

    def _put(self, key: object, value: object) -> None:
        if not self.identity:
            return
        name, text = digest.short(digest.of_value(key), 32), json.dumps(value)
        try:
            jsonl.write_text(self._folder / f"{name}.txt", f"{_proof(name, text)}\n{text}")
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """A full disk or a folder that cannot be written: go on without."""
        console.decided("scores", f"are not kept, the cache cannot be used ({error})")
        self.identity = ""


def _proof(name: str, text: str) -> str:
    """A flipped bit on the disk must not become an answer."""
    return digest.short(digest.of_texts([name, text]), 16)
