"""What every script of a training rival does alike: reads the spec, notes when steps end, reports on the last line."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def spec() -> tuple[dict[str, Any], Path]:
    """The spec that stands in argv[1], with the variant of argv[3] in `variant`, and the folder to write to."""
    return {**json.loads(Path(sys.argv[1]).read_text("utf-8")), "variant": sys.argv[3]}, Path(sys.argv[2])


def rows(spec: dict[str, Any], order: str) -> list[dict[str, Any]]:
    """Token ids and labels of each row, in the order in which they are to be trained."""
    with (Path(spec["rows"]) / f"{order}.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class Stopwatch:
    """Seconds and loss of each step, and the time at which the first one ended."""

    def __init__(self) -> None:
        self.imported = time.time()
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self.first: float | None = None

    def begin(self) -> None:
        """A step begins: its rows are on the way to the model."""
        self._began = time.perf_counter()

    def end(self) -> None:
        """A step ends: the weights are new."""
        self.seconds.append(time.perf_counter() - self._began)
        self.first = self.first or time.time()

    def report(self, **more: Any) -> None:
        """Prints what was measured; the last line of stdout."""
        print(json.dumps({
            "imported": self.imported, "first": self.first, "seconds": self.seconds, "losses": self.losses, **more,
        }), flush=True)  # fmt: skip


def callback_of(watch: Stopwatch) -> Any:
    """The stopwatch as a callback of transformers' Trainer."""
    from transformers import TrainerCallback

    class Watching(TrainerCallback):
        def on_step_begin(self, *args: Any, **others: Any) -> None:
            watch.begin()

        def on_step_end(self, *args: Any, **others: Any) -> None:
            watch.end()

        def on_log(self, *args: Any, logs: dict[str, Any], **others: Any) -> None:
            if "loss" in logs:
                watch.losses.append(float(logs["loss"]))

    return Watching()
