"""tuneloop's way from chats to the plan of an epoch.

python prepare_tuneloop.py CHATS.jsonl MODEL    prints {"seconds": without loading libraries and model, "rows": …}
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main(path: Path, model: str) -> None:
    """Reads, tokenises, masks, keeps the rows for the next run, plans steps and micro-batches, as `tune` does."""
    os.environ["TUNELOOP_CACHE"] = str(path.with_name("cache"))
    from tuneloop.core.example_file import ExampleFile
    from tuneloop.forward.plan import micro_batches, token_budget
    from tuneloop.models.config import ModelConfig
    from tuneloop.models.find import find_base
    from tuneloop.render.flat import ids_of, lengths_of
    from tuneloop.render.load import renderer_of
    from tuneloop.tune.config import TuneConfig
    from tuneloop.tune.plan import Order
    from tuneloop.tune.rows import render_rows

    renderer, config = renderer_of(find_base(ModelConfig(base=model))), TuneConfig()
    started = time.perf_counter()
    rows = render_rows(renderer, ExampleFile(path), config, "render").rendered
    lengths, ids = lengths_of(rows), ids_of(rows)
    for step in Order(config, rows, 7).epoch(0):
        micro_batches(lengths, step, token_budget("cpu"), packed=True, ids=ids)
    print(json.dumps({"seconds": time.perf_counter() - started, "rows": len(rows)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
