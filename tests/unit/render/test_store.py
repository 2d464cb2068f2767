"""Kept rows are the rows, or they are not taken."""

import os

import numpy as np
import pytest

from tuneloop.core.errors import DataError
from tuneloop.render import store
from tuneloop.render.flat import FlatRows
from tuneloop.render.rendered import Rendered


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNELOOP_CACHE", str(tmp_path))


def kept(tokens: int) -> store.Kept:
    row = Rendered(np.arange(tokens, dtype=np.int32), np.ones(tokens, np.float32), "0" * 16)
    return store.Kept({"rendered": FlatRows.of([[row, row]]), "rejected": FlatRows.of([])}, {"said": ["a"]})


def test_what_is_read_is_what_was_written() -> None:
    folder = store.folder_of({"file": "a"})
    assert store.read(folder) is None
    store.write(folder, kept(5))
    found = store.read(folder)
    assert found is not None and found.about == {"said": ["a"]} and not found.sets["rejected"]
    assert [row.ids.tolist() for row in found.sets["rendered"]] == [[0, 1, 2, 3, 4]] * 2
    assert store.folder_of({"file": "b"}) != folder


@pytest.mark.parametrize("harm", ["byte", "short", "gone", "record"])
def test_damage_is_found(harm: str) -> None:
    folder = store.folder_of({"file": "a"})
    store.write(folder, kept(5))
    file = folder / ("about.json" if harm == "record" else "rendered.ids.npy")
    data = file.read_bytes()
    if harm == "gone":
        file.unlink()
    else:
        file.write_bytes(data[:-3] if harm in ("short", "record") else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DataError, match="damaged"):
        store.read(folder)


def test_the_longest_unused_go(monkeypatch) -> None:
    folders = [store.folder_of({"file": name}) for name in "abc"]
    for age, folder in enumerate(folders[:2]):
        store.write(folder, kept(1000))
        os.utime(folder, (100 + age, 100 + age))
    assert store.read(folders[0])  # so b is now the one unused for longest
    monkeypatch.setattr(store, "LIMIT", 30_000)
    store.write(folders[2], kept(1000))
    assert [folder.is_dir() for folder in folders] == [True, False, True]
