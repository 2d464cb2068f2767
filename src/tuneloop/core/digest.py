"""Content digests: short, stable names for values, files and folders. Every digest carries its algorithm."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from mmap import mmap
from pathlib import Path

import orjson

PREFIX = "sha256:"  # changing the algorithm or the canonical form changes every id and every cache key


def of_value(value: object) -> str:
    """Digest of a JSON-like value; dictionary order does not matter, number types do (1 and 1.0 differ)."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return PREFIX + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def of_texts(value: object) -> str:
    """`of_value` of lists and dictionaries of nothing but texts, five times as fast: only numbers are written in
    different ways."""
    try:
        return PREFIX + hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()
    except TypeError:  # halves of surrogate pairs
        return of_value(value)


def of_file(path: Path) -> str:
    """Digest of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return PREFIX + hashlib.file_digest(file, "sha256").hexdigest()


def of_bytes(data: bytes | mmap) -> str:
    """Digest of bytes in memory or of a mapped file: `of_file` of a file that holds them."""
    return PREFIX + hashlib.sha256(data).hexdigest()


def short_of_bytes(data: bytes, length: int = 12) -> str:
    """`short` of `of_bytes`, for every row."""
    return hashlib.sha256(data).hexdigest()[:length]


def of_files(root: Path, files: Iterable[Path]) -> str:
    """Digest of several files: their paths below `root` and their bytes, in sorted order."""
    return of_value({str(path.relative_to(root)): of_file(path) for path in sorted(files)})


def of_folder(root: Path) -> str:
    """Digest of all files below a folder."""
    return of_files(root, (path for path in root.rglob("*") if path.is_file()))


def short(digest: str, length: int = 12) -> str:
    """The first hexadecimal digits, for names and tables."""
    return digest.removeprefix(PREFIX)[:length]
