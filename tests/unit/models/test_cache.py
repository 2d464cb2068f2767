from __future__ import annotations

import os
from pathlib import Path

from tuneloop.models import cache


def test_what_was_used_last_stays(tmp_path: Path) -> None:
    for age, name in enumerate(["new", "middle", "old", ".killed"]):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "hidden.bin").write_bytes(bytes(100))
        for path in (folder / "hidden.bin", folder):
            os.utime(path, (1e9 - age, 1e9 - age))
    (tmp_path / ".growing").mkdir()
    cache.make_room(tmp_path, 250)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "middle", ".growing"}
    cache.make_room(tmp_path, 0, spared=tmp_path / "middle")
    assert {path.name for path in tmp_path.iterdir()} == {"middle", ".growing"}
