"""tuneloop's recipe of a work, and where its time goes.

python train_tuneloop.py SPEC.json FOLDER        prints the shares of a step's time by kind of operation
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

INSIDE = {"loss": "_ChunkedNLL", "optimizer": "Optimizer.step"}
"""Kind → what the names of operations begin with whose parts belong to it, whatever they are."""
KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn"),
    "attention": ("scaled_dot_product", "flash_attention"),
    "optimizer": ("_fused_adamw", "foreach_norm", "linalg_vector_norm"),
    "moving and selecting": ("copy_", "index", "cat", "gather", "scatter", "clone", "fill_", "zero_", "embedding"),
}
"""Kind → what the names of its operations contain; all other operations count as element-wise."""


def recipe(spec: dict[str, Any], rows: Path) -> dict[str, Any]:
    """The recipe, without validation, checkpoints and trackers: the rivals have none of these either."""
    return {
        "name": "benchmark",
        "seed": spec["seed"],
        "model": {"base": spec["model"], "dtype": "bf16"},
        "data": {"sources": [{"path": str(rows)}], "split": {"train": 1, "val": 0, "test": 0}},
        "tune": {
            "method": spec["method"], "epochs": spec["epochs"], "batch_size": spec["batch_size"], "shuffle": False,
            "learning_rate": spec["learning_rate"], "schedule": "constant", "max_length": spec["max_length"],
            "save_every": 10_000,
        },
        "track": {"to": []},
    }  # fmt: skip


def profile(spec: dict[str, Any], folder: Path) -> str:
    """Markdown: seconds of each kind in the steps after the first, by torch's profiler."""
    import torch
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    from tuneloop.cli.main import main
    from tuneloop.tune import loop

    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe(spec, Path(spec["rows"]) / "mixed.messages.jsonl")), "utf-8")
    step, seen = loop._step, []

    def watched(*given: Any) -> dict[str, Any]:
        if not seen:
            seen.append((step(*given), None))
            return seen[0][0]
        with profiled(activities=[ProfilerActivity.CPU]) as found:
            row = step(*given)
        seen.append((row, list(found.events())))
        return row

    loop._step = watched
    sys.argv = ["tuneloop", "tune", str(path), "--runs", str(folder / "runs")]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    return _shares([row for row, _ in seen[1:]], [events for _, events in seen[1:]], torch.get_num_threads())


def _shares(rows: list[dict[str, Any]], steps: list[list[Any]], threads: int) -> str:
    wall = sum(row["seconds"] for row in rows)
    kinds, operations, calls = Counter(), Counter(), Counter()
    for events in steps:
        for event in events:
            seconds = event.self_cpu_time_total / 1e6
            kinds[_kind(event)] += seconds
            operations[event.key] += seconds
            calls[event.key] += 1
    kinds["python and waiting"] = max(0.0, wall - sum(kinds.values()))
    tokens = sum(row["tokens"] for row in rows)
    lines = [
        f"{len(rows)} steps, {tokens:,} tokens, {wall:.2f} s",
        f"({tokens / wall:,.0f} tokens/s under the profiler, {threads} threads)",
        "",
    ]
    lines += ["| kind | seconds | share |", "|---|--:|--:|"]
    lines += [f"| {kind} | {seconds:.2f} | {seconds / wall:.0%} |" for kind, seconds in kinds.most_common()]
    lines += ["", "| operation (own time) | calls | seconds | share |", "|---|--:|--:|--:|"]
    lines += [
        f"| {name} | {calls[name]:,} | {seconds:.2f} | {seconds / wall:.0%} |"
        for name, seconds in operations.most_common(24)
    ]
    return "\n".join(lines)


def _kind(event: Any) -> str:
    whole = event
    while whole:
        for kind, name in INSIDE.items():
            if whole.key.startswith(name):
                return kind
        whole = whole.cpu_parent
    return next((kind for kind, parts in KINDS.items() if any(part in event.key for part in parts)), "element-wise")


if __name__ == "__main__":
    print(profile(json.loads(Path(sys.argv[1]).read_text("utf-8")), Path(sys.argv[2])))
