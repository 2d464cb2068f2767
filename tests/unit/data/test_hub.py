"""Data sets of the hub, over HTTP, from a hub on this machine."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hub_server import hub

pytest.importorskip("datasets")

READ = """
import json, sys
from tuneloop.core.errors import TuneloopError
from tuneloop.data.read import open_source
for path in sys.argv[1:]:
    try:
        raw = open_source(path, limit=3)
        print(json.dumps({"rows": list(raw.records()), "notes": raw.notes}))
    except TuneloopError as error:
        print(json.dumps({"error": str(error)}))
"""


def parquet(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pl.DataFrame(rows).write_parquet(out)
    return out.getvalue()


def fetched(cache: Path, address: str, *paths: str) -> list[dict[str, Any]]:
    """The first 3 rows of each, read by another process: the library takes the hub's address from the environment when
    it is imported."""
    ours = {"HF_ENDPOINT": address, "HF_HOME": str(cache / "hf"), "TUNELOOP_CACHE": str(cache / "ours"),
            "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", READ, *paths], env=os.environ | ours, cwd=cache, check=True,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_only_the_shards_that_are_needed_are_fetched_and_only_once(tmp_path: Path) -> None:
    noise = random.Random(0)
    shards = [
        [{"id": 2 * shard + n, "text": f"问{n}", "noise": noise.randbytes(100_000).hex()} for n in range(2)]
        for shard in range(4)
    ]
    files = {f"data/train-0000{number}-of-00004.parquet": parquet(rows) for number, rows in enumerate(shards)}
    expected = [*shards[0], shards[1][0]]
    with hub(files) as server:
        assert fetched(tmp_path, server.address, "hf:org/name#train") == [{"rows": expected, "notes": []}]
        assert server.sent < 0.8 * sum(map(len, files.values()))
    (again,) = fetched(tmp_path, server.address, "hf:org/name#train")
    assert again["rows"] == expected and "as fetched on" in again["notes"][0], "the hub is gone"


def test_splits_are_named_and_missing_data_sets_are_errors(tmp_path: Path) -> None:
    files = {f"data/{split}-00000-of-00001.parquet": parquet([{"split": split}]) for split in ("train", "test")}
    with hub(files) as server:
        named, unnamed, none = fetched(tmp_path, server.address, "hf:org/name#test", "hf:org/name", "hf:org/none#train")
    assert named["rows"] == [{"split": "test"}]
    assert "the splits train, test; name the one that is meant: hf:org/name#train, hf:org/name#test" in unnamed["error"]
    assert "could not be read from the hub" in none["error"]
