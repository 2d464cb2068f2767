"""tuneloop's own work in one process, without start-up and audit card: recognition, steps, split, all files written.

    python run_tuneloop.py ROWS.jsonl FOLDER [RIVAL]        prints {"seconds": CPU seconds, "kept": rows}

With a rival's name it does that rival's steps and no others, though always with ids and the ledger of dropped rows. As
for the rivals, what a pipeline loads once (patterns, tables, the model of languages) is loaded before.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

ALL = "all"
STEPS = {"repair": {}, "language": {"keep": ["zh", "en"]}, "length": {"min_words": 3}, "exact_duplicates": {},
         "near_duplicates": {}, "pii": {}}  # fmt: skip
OF_RIVALS = {
    "naive": ("language", "length", "exact_duplicates"),
    "data_juicer": ("repair", "length", "exact_duplicates", "near_duplicates", "pii"),
    "datatrove": ("repair", "near_duplicates", "pii"),
}
DRAWN: dict[str, Any] = {"together": "equal"}
"""Rivals draw their splits at random: ours looks for no near-duplicates then, yet keeps equal prompts together."""
NO_SPLIT = {**DRAWN, "train": 1, "val": 0, "test": 0}
WARM_UP = ("Wie koche ich Kartoffeln?", "Die Kartoffeln schÃ¤len, dann 20 Minuten kochen: 138 0013 8000.")


def data_of(path: str, like: str = ALL) -> dict[str, Any]:
    """The recipe's branch `data`: all steps and the split as it is by default, or what a rival does."""
    names = OF_RIVALS.get(like, tuple(STEPS))
    split = {} if like == ALL else NO_SPLIT if like == "datatrove" else DRAWN
    return {
        "sources": [{"path": path, "format": "alpaca"}],
        "steps": [{name: STEPS[name]} for name in names],
        "split": split,
    }


def work(path: Path, folder: Path, like: str) -> int:
    """All of `tuneloop prepare` but the card; the rows kept."""
    from tuneloop.core.machine import without_collector
    from tuneloop.data import assembly, split
    from tuneloop.data.config import DataConfig
    from tuneloop.data.passes import refine
    from tuneloop.data.source import recognise

    config = DataConfig.model_validate(data_of(str(path), like))
    with without_collector():  # as `prepare_in` does
        groups = {"sources": [recognise(source, 0) for source in config.sources]}
        extra = split.near() if config.split.together == "near" else []
        refined = refine(groups["sources"], config.steps, folder / "shards", "here", extra=extra)
        return assembly.assemble(config, groups, {"sources": refined}, folder, None).table.height


def main(path: Path, folder: Path, like: str = ALL) -> None:
    """Warms up on a few rows, then works."""
    warm = folder / "warm.jsonl"
    row = {"instruction": WARM_UP[0], "input": "", "output": WARM_UP[1]}
    lines = [json.dumps({**row, "output": row["output"] * times}) for times in range(1, 20)]
    warm.write_text("".join(f"{line}\n" for line in lines * 40), "utf-8")  # so many that what is compiled is loaded
    (folder / "warm").mkdir()
    work(warm, folder / "warm", like)
    start = time.process_time()
    kept = work(path, folder, like)
    print(json.dumps({"seconds": time.process_time() - start, "kept": kept}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
