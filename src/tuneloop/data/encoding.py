"""Which encoding a text file has, decided on the whole file: UTF-8, GB18030 or Big5 (or what the recipe says).

Almost every byte sequence is valid GB18030, Big5 and broken UTF-8 included, so "it decodes" proves nothing: the decoded
characters must be ones that people write.
"""

from __future__ import annotations

import codecs
import re
from functools import cache
from itertools import islice

from tuneloop.core.errors import DataError

MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
MARK_SIZE = 4096  # bytes of a file's beginning that `first_guess` wants
LOOKED_AT = 100_000  # non-ASCII characters judged for plausibility; the decoding itself covers the whole file
PLAUSIBLE = 0.7  # share of common characters among the non-ASCII ones; Chinese has > 0.95, mojibake < 0.5
FREQUENT = frozenset(
    "的一是不了在人有我他这這个個们們中来來上大为為和国國地到以说說时時要就出会會可也你对對生能而子那得于於着著下自之年过過发發后後作里裡"
    "用道行所然家种種事成方多经經么麼去法学學如都同现現当當没沒动動面起看定天分还還进進好小部其些主样樣理心本前开開但因只从從想日么"
)
PUNCTUATION = "，。、；：？！“”‘’（）《》【】—…·「」『』〈〉～％　"
PINYIN = "āáǎàēéěèīíǐìōóǒòūúǔùǖǘǚǜü"
GB18030_FIRST = 0.2  # by how much more frequent characters Big5 must have, where a short text reads as both


def first_guess(head: bytes, encoding: str) -> str:
    """The encoding to try first on a file that begins so: what the recipe says, what its mark says, or UTF-8."""
    marked = next((name for mark, name in MARKS.items() if head.startswith(mark)), None)
    if encoding == "auto":
        return marked or _unmarked_utf16(head) or "utf-8"
    # utf-8 and utf-16-le would take the mark for a character of the text
    same = marked is not None and codecs.lookup(encoding).name.startswith(marked.removesuffix("-sig"))
    return marked if marked is not None and same else encoding


def decode(data: bytes, path: str, encoding: str) -> tuple[str, str]:
    """The text and the name of its encoding. Raises DataError with the line where an encoding does not fit."""
    guess = first_guess(data[:MARK_SIZE], encoding)
    if encoding != "auto" or guess != "utf-8":
        return _strictly(data, path, guess), guess
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError as error:
        _reject_mixture(data, path, error.start)
    candidates = [(name, text) for name in ("gb18030", "big5") if (text := _try(data, name)) is not None]
    plausible = [(name, text) for name, text in candidates if _share(text, common_characters()) >= PLAUSIBLE]
    if not plausible:
        raise _unknown(data, path, candidates)
    name, text = max(plausible, key=lambda found: _share(found[1], FREQUENT) + GB18030_FIRST * (found[0] == "gb18030"))
    return text, name


def _unmarked_utf16(head: bytes) -> str | None:
    """Which UTF-16 a text without a mark is in. Its ASCII characters hold NUL bytes, which no other encoding has."""
    if b"\0" not in head:
        return None
    names = ("utf-16-le", "utf-16-be")
    readable = {name: _readable(head[: len(head) // 2 * 2].decode(name, "ignore")) for name in names}
    best = max(names, key=lambda name: readable[name])
    return best if readable[best] >= PLAUSIBLE else None


def _strictly(data: bytes, path: str, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}:{_line(data, error.start)}: not valid {encoding} (byte 0x{data[error.start]:02x}); "
            "correct `encoding:` of the source or leave it at auto"
        ) from error


def _try(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def _reject_mixture(data: bytes, path: str, first_bad: int) -> None:
    """Raises DataError when other lines are surely UTF-8: then no single encoding is right for the file."""
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.isascii():
            continue
        text = _try(line, "utf-8")
        # two CJK characters that are valid UTF-8 by chance do not occur in GB18030 or Big5 text
        if text is not None and sum(char in common_characters() for char in text) >= 2:
            bad = _line(data, first_bad)
            shown = data.split(b"\n")[bad - 1][:120].decode("gb18030", "replace")
            raise DataError(
                f"{path}: mixed encodings: line {number} is UTF-8, line {bad} is not (byte 0x{data[first_bad]:02x}). "
                f"As GB18030 line {bad} begins: {shown[:40]!r}. Convert the file to one encoding and try again."
            )


def _line(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1


def _share(text: str, known: frozenset[str]) -> float:
    foreign = [match[0] for match in islice(re.finditer(r"[^\x00-\x7f]", text), LOOKED_AT)]
    return sum(char in known for char in foreign) / max(1, len(foreign))


def _readable(text: str) -> float:
    """Share of the characters that people write."""
    known = common_characters()
    return sum(" " <= char <= "~" or char in "\t\r\n" or char in known for char in text) / max(1, len(text))


@cache
def common_characters() -> frozenset[str]:
    """The first levels of GB 2312 (3,755 characters) and Big5 (5,401), Chinese punctuation, pinyin."""
    levels = (("gb2312", range(0xB0, 0xD8), [*range(0xA1, 0xFF)]),
              ("big5", range(0xA4, 0xC7), [*range(0x40, 0x7F), *range(0xA1, 0xFF)]))  # fmt: skip
    pairs = ((bytes([lead, trail]), name) for name, leads, trails in levels for lead in leads for trail in trails)
    return frozenset("".join(pair.decode(name, "ignore") for pair, name in pairs) + PUNCTUATION + PINYIN)


def _unknown(data: bytes, path: str, candidates: list[tuple[str, str]]) -> DataError:
    number = next(number for number, line in enumerate(data.split(b"\n"), 1) if _try(line, "utf-8") is None)
    lines = {name: text.split("\n")[number - 1 :][:1] for name, text in candidates}
    readings = "; ".join(f"as {name}: {line[:40]!r}" for name, found in lines.items() for line in found)
    return DataError(
        f"{path}:{number}: the encoding is not UTF-8 and the text does not read as Chinese in GB18030 or Big5"
        f"{f' ({readings})' if readings else ''}. Name it at the source, e.g. `encoding: cp1252`, or convert to UTF-8."
    )
