"""Tokens, masks and plan of many chats: tuneloop against TRL's preparation, on the same file."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

from training import made
from training.contestants import RIVALS_FOLDER, python
from training.measure import ran

CONTESTANTS = {"tuneloop": ("tuneloop", []), "trl": ("trl", ["1"]), "trl-processes": ("trl", ["2"])}
"""Name → script, and what it is told beside file and model."""
TITLES = {"tuneloop": "tuneloop", "trl": "TRL, defaults", "trl-processes": "TRL, two processes"}


def write(count: int, folder: Path) -> Path:
    """The chats, in a shape that both read: `messages` for tuneloop, `prompt` and `completion` for TRL. Their numbers
    are drawn anew each time, as both keep what they have prepared before."""
    path, first = folder / "chats.jsonl", random.randrange(10**9)
    with path.open("w", encoding="utf-8") as file:
        for number, chat in enumerate(made.chats(count, first)):
            origin = {"source": path.name, "row": number}
            file.write(
                json.dumps({"messages": chat, "prompt": chat[:1], "completion": chat[1:], "origin": origin}) + "\n"
            )
    return path


def sample(name: str, count: int, path: Path, folder: Path, work: Path) -> dict[str, Any]:
    """One preparation. Raises Failed when it does not get through."""
    script, more = CONTESTANTS[name]
    chats = [str(path), str(made.model("embedded", work)), *more]
    run = ran([python(script, work), str(RIVALS_FOLDER / f"prepare_{script}.py"), *chats], folder)
    said = json.loads(run.said)
    if said["rows"] != count:
        print(f"{name} kept {said['rows']:,} of {count:,} chats", file=sys.stderr)
    return {
        "work": f"prepare-{count}", "contestant": name, "seconds": said["seconds"], "rows": said["rows"],
        "peak_gib": run.peak / 2**30, "others": run.others,
    }  # fmt: skip
