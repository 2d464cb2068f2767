"""A .zip archive, read in place: its files of one kind, one after the other, each row with the name of its file."""

from __future__ import annotations

import zipfile
from pathlib import PurePosixPath

from tuneloop.core.errors import DataError
from tuneloop.data.reading.place import Place

LARGEST = 16 << 30  # bytes after unpacking
RATIO = 300  # to which text may be packed; repetitive JSON Lines reach 50, a zip bomb 1,000 and more
UNSUSPICIOUS = 64 << 20  # bytes after unpacking that harm no machine, whatever the ratio
NAMES_ARE_UTF8 = 0x800
ENCRYPTED = 0x1


def members(path: str, kinds: frozenset[str]) -> tuple[list[Place], tuple[str, ...]]:
    """The files of the archive that hold rows, by name, and notes on those left out. Raises DataError."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = [info for info in archive.infolist() if not info.is_dir()]
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: not a readable zip archive ({error})") from error
    wanted = [info for info in files if _suffix(info) in kinds and not _is_junk(info)]
    if not wanted:
        names = ", ".join(sorted(_name(info) for info in files)[:8]) or "nothing"
        raise DataError(f"{path} holds no file of the kinds {', '.join(sorted(kinds))}; it holds {names}")
    found = sorted({_suffix(info) for info in wanted})
    if len(found) > 1:
        raise DataError(f"{path} holds files of several kinds ({', '.join(found)}); unpack it and name them one by one")
    if any(info.flag_bits & ENCRYPTED for info in wanted):
        raise DataError(f"{path} is protected by a password; unpack it and name its files instead")
    _check_size(path, wanted)
    left_out = sorted(_name(info) for info in files if info not in wanted and not _is_junk(info))
    notes = (f"{path}: not read: {', '.join(left_out[:8])}",) if left_out else ()
    return sorted((Place(path, _name(info), info.filename) for info in wanted), key=lambda place: str(place)), notes


def _check_size(path: str, wanted: list[zipfile.ZipInfo]) -> None:
    """The sizes stated are binding: `zipfile` reads no byte beyond them."""
    large, packed = sum(info.file_size for info in wanted), sum(info.compress_size for info in wanted)
    if large > LARGEST or (large > UNSUSPICIOUS and large > RATIO * packed):
        raise DataError(
            f"{path} would unpack to {large / 2**30:,.1f} GiB, {large // max(1, packed):,} times its size, which looks "
            "like a zip bomb. If it is none, unpack it and name its files instead"
        )


def _name(info: zipfile.ZipInfo) -> str:
    """Archives made in Chinese Windows spell names in GBK, and Python takes them for cp437."""
    if info.flag_bits & NAMES_ARE_UTF8 or info.filename.isascii():
        return info.filename
    spelt = info.filename.encode("cp437")
    for encoding in ("utf-8", "gb18030"):
        try:
            return spelt.decode(encoding)
        except UnicodeDecodeError:
            continue
    return info.filename


def _suffix(info: zipfile.ZipInfo) -> str:
    return Place("", info.filename).suffix


def _is_junk(info: zipfile.ZipInfo) -> bool:
    """What macOS puts beside the files."""
    path = PurePosixPath(info.filename)
    return "__MACOSX" in path.parts or path.name.startswith(".")
