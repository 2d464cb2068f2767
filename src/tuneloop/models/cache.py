"""The cache folder, folders that appear whole or not at all and go when they were not used for longest, and digests of
model files that are computed once.

Knows nothing of what the folders hold.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tuneloop.core import digest, jsonl

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
CONFIG = ("config.json",)
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model",
    "vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "tuneloop.json")
"""Files of an adapter from which answers follow; the last, a record of its base, others' adapters do not have."""
ABANDONED = 3600.0
"""Seconds after which an unfinished folder is no other process's work any more."""


def root() -> Path:
    """`$TUNELOOP_CACHE`, else ~/.cache/tuneloop."""
    return Path(os.environ.get("TUNELOOP_CACHE") or Path.home() / ".cache" / "tuneloop")


@contextmanager
def building(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that takes its place when the block ends well; else `target` stays as it was."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    folder.chmod(0o755)
    try:
        yield folder
        for path in folder.rglob("*"):
            if path.is_file():
                path.chmod(0o644)  # safetensors writes 0600, which a server under another user could not read
                _sync(path)
        _swap(folder, target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _swap(folder: Path, target: Path) -> None:
    """POSIX renames no folder over a full one: the old one steps aside, and comes back when the new one cannot."""
    if not target.exists():
        os.rename(folder, target)
        return
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old."))
    os.rename(target, aside / target.name)
    try:
        os.rename(folder, target)
    except OSError:
        os.rename(aside / target.name, target)
        raise
    finally:
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_room(root: Path, limit: int, spared: Path | None = None) -> None:
    """Deletes folders in `root`, longest unused first, until they take `limit` bytes, and what killed processes left.

    `spared` stays in any case. A process that has a deleted folder's files open or mapped keeps what it has.
    """
    sizes: dict[Path, tuple[float, int]] = {}
    for one in root.iterdir():
        try:
            files = [path.stat() for path in one.rglob("*") if path.is_file()]
            used = max([one.stat().st_mtime, *(file.st_mtime for file in files)])
        except FileNotFoundError:  # another process deletes it, or files in it, at this moment
            continue
        if not one.name.startswith("."):
            sizes[one] = used, sum(file.st_size for file in files)
        elif used < time.time() - ABANDONED:
            shutil.rmtree(one, ignore_errors=True)
    total = sum(size for _, size in sizes.values())
    for one, (_, size) in sorted(sizes.items(), key=lambda item: item[1][0]):
        if total <= limit:
            break
        if one != spared:
            shutil.rmtree(one, ignore_errors=True)
            total -= size


def files_of(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """The files directly in `folder` that match one of the patterns, sorted."""
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def digest_of(folder: Path, patterns: Iterable[str]) -> str:
    """Digest over names and bytes of the matching files; each file is hashed once per size and time of change."""
    return digest.of_value({path.name: file_digest(path) for path in files_of(folder, patterns)})


def adapter_digest(folder: Path) -> str:
    """What an adapter is known by wherever it is served or compared."""
    return digest_of(folder, ADAPTER)


def file_digest(path: Path) -> str:
    """Digest of a file; above 1 MiB remembered by path, size, time of change and inode."""
    state = path.stat()  # follows links: hub snapshots are folders of links
    if state.st_size < 1 << 20:
        return digest.of_file(path)
    key = digest.of_value([str(path.resolve()), state.st_size, state.st_mtime_ns, state.st_ino])
    known = root() / "digests" / digest.short(key, 32)
    if known.is_file():
        return known.read_text("ascii")
    found = digest.of_file(path)
    jsonl.write_text(known, found)
    return found
