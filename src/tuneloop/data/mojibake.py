"""Text that was decoded with the wrong encoding, and back: UTF-8 read as Latin-1, Windows code pages or GBK, and GBK
read as Latin-1; also when it happened twice. Knows nothing of Examples.

A restoration must decode without a fault and give text that people write, from text that they do not: clean rows stay.
"""

from __future__ import annotations

import re

from tuneloop.data.encoding import FREQUENT, PUNCTUATION, common_characters

_FREQUENT = FREQUENT | frozenset(PUNCTUATION)
_ASCII = frozenset(map(chr, range(128)))
TIMES = 4  # mojibake of mojibake of mojibake occurs; more has not been seen
_FOREIGN = re.compile(r"[^\x00-\x7f]+")
_MENTION = re.compile(r"(?i)mojibake|乱码|亂碼|文字化け|\bencod|编码|編碼|utf-?8|latin-?1|cp125\d|unicode")

# UTF-8 read as a Western (or Russian, Greek, Mac …) code page: a lead byte's character, then a continuation byte's one.
_AS_CODE_PAGE = re.compile(
    "[\x80-\x9f]|[\u00c2-\u00f4\u0102-\u0111\u0392-\u039f\u0410-\u0432√‚Γ╬][^\x00-\x7f\u4e00-\u9fff]|[ÃÂ] "
)
_TAIL = "[\x80-\xbf" + "".join(re.escape(bytes([code]).decode("cp1252", "ignore")) for code in range(0x80, 0xA0)) + "]"
_SEQUENCE = re.compile(f"[Â-ß]{_TAIL}|[à-ï]{_TAIL}{{2}}|[ð-ô]{_TAIL}{{3}}")
_SEQUENCES = re.compile(f"(?:{_SEQUENCE.pattern}){{2,}}")
# The right quote's last byte, 0x9D, has no character in Windows-1252 and is often lost.
_LOST_QUOTE = re.compile(r"â€(?:[?\ufffd](?!\w)|(?=[ \n.,;:!)\]]|$))")
_WESTERN = re.compile("[\u00a1-\u024f\u2010-\u2044\u20ac\u2122]*")

# GBK read as Latin-1 or Windows-1252: nearly all of its bytes are beyond ASCII.
_CP1252 = {code: bytes([code]).decode("cp1252", "ignore") or chr(code) for code in range(0x80, 0xA0)}
_TO_LATIN = {code: code for code in range(0x100)} | {ord(char): code for code, char in _CP1252.items()}
_UPPER_HALF = "".join(re.escape(chr(point)) for point, code in sorted(_TO_LATIN.items()) if code >= 0x80)
_AS_LATIN = re.compile("[\xa1-\xff]{4}|¡[¯°±ª\xad®]")
_LATIN_RUN = re.compile(f"(?:[{_UPPER_HALF}]{{2}})+")

# UTF-8 read as GBK: the first two bytes of a Han character make one of 384 rare GBK characters (_FIRST), and its last
# byte with the first of the next character makes another one (_NEXT).
_LEADS = [0xE2, 0xE3, *range(0xE4, 0xEA), 0xEF, 0xF0]
_FIRST = "".join(
    bytes([lead, second]).decode("gb18030", "ignore") for lead in _LEADS[2:8] for second in range(0x80, 0xC0)
)
_FIRST += "".join(pair.decode("gbk") for pair in (b"\xe2\x80", b"\xe3\x80", b"\xef\xbc", b"\xef\xbd", b"\xf0\x9f"))
_NEXT = "".join(bytes([last, lead]).decode("gb18030", "ignore") for last in range(0x81, 0xC0) for lead in _LEADS)
_AS_GBK_SIGN = re.compile(f"[{_FIRST}]")
_AS_GBK = re.compile(f"[{_FIRST}][{_NEXT}\ufffd?]|鈥")
SIGNS = f"\x80-\xff\u0102-\u0111\u0392-\u039f\u0410-\u0432√‚Γ╬{_FIRST}"
"""One of these is in every mojibake; clean Chinese and English texts rarely have one, so that this is all they cost."""
_SIGN = re.compile(f"[{SIGNS}]")
SUSPICIOUS = "|".join(pattern.pattern for pattern in (_AS_CODE_PAGE, _AS_GBK, _AS_LATIN))
"""What `suspicious` looks for."""
_PIECES = (re.compile(r"[^\n]+"), re.compile(r"[^\s，。！？：；、“”（）]+"))
_EMOJI = re.compile("[\U0001f300-\U0001faff\ufe0f]+")
# "don鈥檛": an English text with curly quotes, read as GBK; the second byte pair swallowed a letter.
_QUOTE_AS_GBK = re.compile("鈥[^\x00-\x7f]")

LOST_SIGNS = "锟\ufffd鈥锛銆烫屯"
_LOST_SIGN = re.compile(f"[{LOST_SIGNS}]")
_LOST = re.compile("(?:锟斤拷|锟斤|\ufffd)+|[鈥锛銆][?？]|烫烫烫+|屯屯屯屯+")


def lost(text: str) -> str | None:
    """The first place where characters are lost for good, unless the text speaks of encodings."""
    if text.isascii() or not _LOST_SIGN.search(text):
        return None
    found = _LOST.search(text)
    return None if found is None or _MENTION.search(text) else text[max(0, found.start() - 10) : found.end() + 10]


def suspicious(text: str) -> bool:
    """Whether it is worth while to call `restore`; under a microsecond for a clean text of 400 characters."""
    if text.isascii() or not _SIGN.search(text):
        return False
    return bool(_AS_CODE_PAGE.search(text) or _AS_GBK.search(text) or _AS_LATIN.search(text))


def restore(text: str) -> str:
    """The text as it was before the wrong decoding; the same text where none is found or none is sure."""
    restored = text
    for _ in range(TIMES):
        once = _from_code_page(_from_gbk(_from_latin(restored)))
        changed, restored = once != restored, once
        if not (changed and suspicious(once)):
            break
    if restored != text and len(text) - len(restored) < len(text) // 10 and _MENTION.search(text):
        return text  # it speaks of encodings and shows what goes wrong
    return restored


def _from_latin(text: str) -> str:
    """GBK (GB18030) that was read as Latin-1 or Windows-1252: ÄãºÃ → 你好."""
    if not _AS_LATIN.search(text):
        return text
    decoded = {text: _latin_as(text, "gb18030")}
    if decoded[text] is None:
        decoded = {run: _latin_as(run, "gb18030") for run in _LATIN_RUN.findall(text)}
    result = "".join(filter(None, decoded.values()))
    left = sum(len(run) for run, mended in decoded.items() if mended is None)
    foreign = "".join(_FOREIGN.findall(result))
    if left > len(foreign) // 5 or len(foreign) < 2 or _share(foreign, common_characters()) < 0.9:
        return text
    if _share(foreign, _FREQUENT) < 0.1:  # a list of accented letters decodes too, to characters of no text
        from ftfy.badness import badness

        if badness(text) * 3 < len(foreign) or _from_code_page(text) != text:
            return text
    if text in decoded:
        return result
    return _LATIN_RUN.sub(lambda match: decoded[match[0]] or match[0], text)


def _latin_as(text: str, encoding: str) -> str | None:
    try:
        return text.encode("latin-1").decode(encoding)  # no sign of Windows' among them, mostly
    except UnicodeEncodeError:
        pass
    except UnicodeDecodeError:
        return None
    try:
        return text.translate(_TO_LATIN).encode("latin-1").decode(encoding)
    except UnicodeError:
        return None


def _from_code_page(text: str) -> str:
    """UTF-8 that was read as a single-byte code page: ä½\xa0å¥½ → 你好."""
    if not _AS_CODE_PAGE.search(text):
        return text
    from ftfy import TextFixerConfig, fix_encoding
    from ftfy.badness import is_bad

    if _latin_as(text, "utf-8") is None and is_bad(text):  # cut or edited, so that it does not decode as a whole
        text = _LOST_QUOTE.sub("â€\x9d", text) if "â€œ" in text else text
        mended = _SEQUENCES.sub(lambda match: _sequences_as_utf8(match[0]), text)
        text = text if mended == text else _SEQUENCE.sub(lambda match: _sequences_as_utf8(match[0]), mended)
    # a lossy sequence would become U+FFFD: no repair, but one more character that is not text
    restored = fix_encoding(text, TextFixerConfig(replace_lossy_sequences=False))
    if len(text) - len(restored) == 1 and not _WESTERN.fullmatch("".join(set(restored) - set(text) - _ASCII)):
        return text  # one pair of signs, such as ×², is no proof that they were one Hebrew letter
    return restored


def _sequences_as_utf8(sequences: str) -> str:
    result = _latin_as(sequences, "utf-8") or ""
    return result if sum(char > "\u07ff" for char in result) * 2 > len(result) else sequences


def _from_gbk(text: str) -> str:
    """UTF-8 that was read as GBK: 浣犲ソ → 你好."""
    if not _AS_GBK.search(text):
        return text
    whole = _gbk_as_utf8(text)
    if whole is not None:
        return whole
    for pieces in _PIECES:
        mended = pieces.sub(lambda match: _gbk_as_utf8(match[0]) or match[0], text)
        if mended != text:
            return mended
    quotes = _QUOTE_AS_GBK.sub(lambda match: _quote_as_utf8(match[0]), text)
    return quotes if quotes != text else _gbk_as_utf8(text, lossy=True) or text


def _gbk_as_utf8(text: str, lossy: bool = False) -> str | None:
    """The text's GBK bytes as UTF-8, where that turns rare characters into common ones.

    Where it is lossy, a byte without a partner had become ? or U+FFFD: the characters around it can be saved.
    """
    signs = len(_AS_GBK_SIGN.findall(text))
    if signs * 5 < sum(map(len, _FOREIGN.findall(text))):  # each two Han characters, six bytes, make at least one
        return None
    data = _gbk_bytes(text) if signs else None
    if data is None:
        return None
    try:
        result = data.decode("utf-8", "replace" if lossy else "strict")
    except UnicodeDecodeError:
        return None
    lost = result.count("\ufffd")
    known = _EMOJI.sub("", result).replace("\ufffd", "")
    after = _share(known, common_characters()) if known.strip() and not known.isascii() else 1.0
    if after < 0.85 or after <= _share(text, common_characters()) + 0.2 or lost * 2 > len(known):
        return _gbk_as_utf8(result) if not lossy and len(result) < len(text) else None  # it may have happened twice
    return re.sub("\ufffd+\\??", "\ufffd", result) if lossy else result


def _gbk_bytes(text: str) -> bytes | None:
    """Windows' code page 936 has the euro sign at byte 0x80; GB18030 has characters where GBK has gaps."""
    for codec in ("gbk", "gb18030"):
        try:
            return b"\x80".join(
                b"\xff".join(part.encode(codec) for part in piece.split("\ufffd")) for piece in text.split("€")
            )
        except UnicodeEncodeError:
            continue
    return None


def _quote_as_utf8(pair: str) -> str:
    result = _gbk_bytes(pair) or b""
    try:
        quote = result.decode("utf-8")
    except UnicodeDecodeError:
        return pair
    return quote if "\u2010" <= quote[:1] <= "\u2026" else pair


def _share(text: str, known: frozenset[str]) -> float:
    """The share of the non-ASCII characters that are among the known ones; 0 where there are none."""
    foreign = "".join(_FOREIGN.findall(text))
    return sum(map(known.__contains__, foreign)) / len(foreign) if foreign else 0.0
