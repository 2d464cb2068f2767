"""Rule `phone`: Chinese mobile and landline, North American and international numbers.

A long number is no phone number because of its length: order numbers, times in milliseconds, ISBNs and sums are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from random import Random
from typing import ClassVar

from tuneloop.guard import digits
from tuneloop.guard.borders import BEGUN, LONG_NUMBER, RIGHT, before, is_sum, label, labelled
from tuneloop.guard.rules import Draw, Rule, Span, Strength

_S = r"[ .\-\u2010-\u2013]"
_EXTENSION = r"(?: ?(?:x|ext\.?|转|#) ?[0-9]{1,6})?"
_MOBILE = re.compile(
    rf"1(?:{BEGUN}|(?<=86.))(?<![0-9][\-.].)(?<!\+.)[3-9][0-9]"
    rf"(?:(?:{_S}?[0-9]{{4}}){{2}}|[0-9]{_S}[0-9]{{3}}{_S}[0-9]{{4}}|{_S}[0-9]{{3}}{_S}[0-9]{{5}}){RIGHT}(?!\.[0-9])"
)
_CODE = re.compile(r"(?<![0-9])(?:00)?86[ \-]?$")
_LANDLINE = re.compile(
    rf"[(（0]{BEGUN}(?<![0-9][ \-.].)(?:(?<=0)|0)[1-9][0-9]{{1,2}}(?:[)）]{_S}?|{_S})[2-8][0-9]{{2,3}}{_S}?[0-9]{{4}}"
    rf"(?:-[0-9]{{1,6}}|{_EXTENSION}){RIGHT}"
)
_AMERICAN = re.compile(
    rf"[(012-9]{BEGUN}(?<![0-9][\-. +].)(?<!\+.)(?:(?:(?<=0)01|(?<=1)){_S}\(?[2-9]|(?<=[2-9])|(?<=\()[2-9])"
    rf"[0-9]{{2}}(?:\){_S}?|{_S})[2-9][0-9]{{2}}{_S}[0-9]{{4}}{_EXTENSION}{RIGHT}(?![\-.][0-9])"
)
_INTERNATIONAL = re.compile(
    rf"\+(?<![0-9A-Za-z)+].)(?<![0-9] .)[1-9](?:[ .\-()]{{0,2}}[0-9]){{7,14}}{_EXTENSION}{RIGHT}"
)
_CHINESE = re.compile(r"86(?:1[3-9][0-9]{9}|(?:10|2[0-9]|[3-9][0-9]{2})[2-8][0-9]{6,7})")
_WORDS = (
    r"(?:电话|手机|联系方式|座机|热线|传真|致电|拨打|短信|微信"
    r"|(?<![a-z])(?:whatsapp|telephone|(?:mobile|cell|home|work|contact)?[ _]?phone|mobile|cell|tel|fax|call|hotline"
    r"|contact))"
)
_LABEL = label(rf"{_WORDS}(?: (?:me|us|him|her|them))?(?: (?:at|on))?", r"\(")
_NUMBER = re.compile(rf"[0-9]{BEGUN}(?:[0-9]{{6,14}}|[0-9]{{1,4}}(?:\)?{_S}?[0-9]{{2,5}}){{1,4}}){_EXTENSION}{RIGHT}")
_NAME_BEFORE = re.compile(rf"{_WORDS}[^0-9。；;\n\]]{{0,12}}$", re.IGNORECASE)
_DATE_OR_PRICE = re.compile(r"(?:19|20)[0-9]{2}[ .\-](?:[0-9]{1,2}[ .\-][0-9]{1,2}|(?:19|20)[0-9]{2})|[0-9]+\.[0-9]{2}")
_OTHER_NUMBER = re.compile(
    r"(?:订单|单号|编号|流水|运单|工单|病历|病案|住院|门诊|案号|账号|帐号|账户|合同|发票|序列号|批号|学号|工号|卡号|票号|QQ"
    r"|(?<![a-z])(?:isbn|issn|order|invoice|ticket|tracking|serial|record|reference|ref|case|item|sku|account|product"
    r"|part|model|batch|patent|id|mrn|upc|ean|timestamp|seed))[^0-9。；;，,\n]{0,12}$",
    re.IGNORECASE,
)
_TOLL_FREE = ("400", "800", "833", "844", "855", "866", "877", "888")
_NEVER_ASSIGNED = ("28", "83", "89", "999")  # first digits of country codes that ITU-T E.164 keeps free


class Phone(Rule):
    """Phone numbers within their country's ranges, or with a word such as 电话 or `phone` in front.

    Hints only: free-phone numbers of firms, 555-0100 to 555-0199 (reserved for fiction), groups parted by spaces alone.
    """

    DIGITS: ClassVar[str | None] = LONG_NUMBER

    def find(self, text: str) -> Iterable[Span]:
        for pattern, judge in _FORMS:
            for match in pattern.finditer(text):
                strength = judge(_without_extension(match[0]))
                left = before(text, match.start())
                code = _CODE.search(left) if pattern is _MOBILE else None
                if not code and re.search("[0-9]86$", left):  # the end of a longer number
                    continue
                start = match.start() - (len(code[0]) if code else 0)
                if strength and not _is_another_number(text, start, match.end()):
                    yield Span(start, match.end(), strength)
        for match in _NUMBER.finditer(text):
            strength = _labelled(_without_extension(match[0]))
            start = labelled(_LABEL, text, match.start()) if strength else None
            if strength and start is not None:
                yield Span(start, match.end(), strength)

    def surrogate(self, text: str, draw: Draw) -> str:
        number = _without_extension(text)
        old = digits.only(number)
        new = _reserved(old, number, draw.random)
        new = digits.pour(new + digits.drawn(len(old) - len(new), draw.random), number)
        return new + digits.redraw(text[len(number) :], draw.random)


def _without_extension(text: str) -> str:
    return re.split(" ?(?:x|ext|转|#)", text, maxsplit=1)[0]


def _is_another_number(text: str, start: int, end: int) -> bool:
    """Whether the words around a number make it a sum, a price or the number of something else."""
    left = before(text, start)
    if _NAME_BEFORE.search(left):
        return False
    return bool(_OTHER_NUMBER.search(left)) or is_sum(text, start, end)


def _mobile(text: str) -> Strength | None:
    return None if text.endswith("000000") else "strong"


def _american(text: str) -> Strength | None:
    value = digits.only(text)[-10:]
    if value[1:3] == "11" or value[4:6] == "11":  # 911 and its like are neither area nor exchange
        return None
    if _belongs_to_nobody(value):
        return "weak"
    return "strong" if re.search(r"[().\-\u2010-\u2013]", text) else "weak"


def _belongs_to_nobody(value: str) -> bool:
    return value[-7:-2] == "55501" or value[-10:-7] in _TOLL_FREE


def _international(text: str) -> Strength | None:
    """A number after a plus sign: country code first (ITU-T E.164)."""
    value = digits.only(text)
    if value.startswith("1"):
        if len(value) != 11 or value[1] in "01" or value[4] in "01":
            return None
        return "weak" if _belongs_to_nobody(value) else "strong"
    if value.startswith("86"):
        return "strong" if _CHINESE.fullmatch(value) else None
    return None if value.startswith(_NEVER_ASSIGNED) or value.endswith("00000") else "strong"


_FORMS: tuple[tuple[re.Pattern[str], Callable[[str], Strength | None]], ...] = (
    (_MOBILE, _mobile),
    (_LANDLINE, lambda text: "strong"),
    (_AMERICAN, _american),
    (_INTERNATIONAL, _international),
)


def _labelled(text: str) -> Strength | None:
    """A number that the text calls a phone number: all but dates, prices, and the forms that surrogates have."""
    value = digits.only(text)
    if not 7 <= len(value) <= 15 or _DATE_OR_PRICE.fullmatch(text) or value.startswith(("000", "8612", "008612")):
        return None
    if (len(value) <= 8 and value[0] in "01") or (len(value) == 11 and value.startswith("12")):
        return None
    return "weak" if len(value) in (10, 11) and _belongs_to_nobody(value) else "strong"


def _reserved(value: str, text: str, random: Random) -> str:
    """First digits, for a number of that form, of numbers that nobody has."""
    fiction = str(random.randint(2, 7)) + digits.drawn(1, random) + str(random.randint(2, 9)) + "55501"
    if "+" in text and not value.startswith(("1", "86")):
        return "83"
    if "+" in text and value.startswith("1"):
        return "1" + fiction
    for code in ("0086", "86"):
        if value.startswith(code) and ("+" in text or len(value) >= 13):
            return code + ("12" if len(value) - len(code) == 11 else "0")
    if _AMERICAN.fullmatch(text) or (len(value) == 10 and value[0] not in "01"):
        return fiction if len(value) == 10 else "1" + fiction
    if len(value) == 11 and value[0] == "1":
        return "12"
    return "0" if len(value) <= 8 else "000"
