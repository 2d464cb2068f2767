"""Rule `date`: full dates; strong only where they are said to be a date of birth."""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable
from datetime import date, timedelta
from typing import ClassVar

from tuneloop.guard.borders import BEGUN, RIGHT, before
from tuneloop.guard.digits import redraw
from tuneloop.guard.rules import Draw, Rule, Span

_MONTHS = tuple(calendar.month_name)[1:]
_SHORT = tuple(name[:3] for name in _MONTHS)
_WORD = rf"(?P<word>{'|'.join((*_MONTHS, *_SHORT))})"
_FREE, _END = rf"{BEGUN}(?<![0-9][\-/.].)", rf"{RIGHT}(?![\-/.][0-9])"
_FORMS = tuple(  # which days exist is left to the calendar
    re.compile(pattern)
    for pattern in (
        r"(?P<year>[12](?<![0-9].)[0-9]{3}) ?年 ?(?P<month>[0-9]{1,2}) ?月 ?(?P<day>[0-9]{1,2}) ?[日号]",
        rf"(?P<year>[12]{_FREE}[0-9]{{3}})(?P<sign>[\-/.])(?P<month>[0-9]{{1,2}})(?P=sign)(?P<day>[0-9]{{1,2}})"
        r"(?![0-9]|[\-/.][0-9])",
        rf"(?P<month>[0-9]{_FREE}[0-9]?)(?P<sign>[\-/.])(?P<day>[0-9]{{1,2}})(?P=sign)(?P<year>[12][0-9]{{3}}){_END}",
        rf"(?P<day>[0-9]{_FREE}[0-9]?)(?P<sign>[\-/.])(?P<month>[0-9]{{1,2}})(?P=sign)(?P<year>[12][0-9]{{3}}){_END}",
        rf"{_WORD}\.? (?P<day>[0-9]{{1,2}})(?:st|nd|rd|th)?,? (?P<year>[12][0-9]{{3}}){RIGHT}",
        rf"(?P<day>[0-9]{BEGUN}[0-9]?)(?:st|nd|rd|th)? {_WORD}\.?,? (?P<year>[12][0-9]{{3}}){RIGHT}",
    )
)
_BIRTH = re.compile(
    r"(?:出生日期|出生年月日?|出生于|生日|生于"
    r"|(?<![a-z])(?:date[ _]of[ _]birth|birth[ _]?dates?|birthdays?|dob|d\.o\.b\.))"
    r"[\"'”’]?\s{0,2}(?:是|为|is|was)?[:：=]?\s{0,2}[\"'“‘]?$",
    re.IGNORECASE,
)


class Date(Rule):
    """Full dates are hints; after 出生日期, 生日, `date of birth` or `DOB` they are strong.

    Surrogates shift them by the days of the document, so what follows what, and after how long, stays true.
    """

    DIGITS: ClassVar[str | None] = (
        r"(?:[\-/.]| ?年 ?)[0-9]{1,2}(?:[\-/.]| ?月 ?)[0-9]"
        rf"|[0-9]?(?:st|nd|rd|th)?,? (?:(?:1[89]|20)[0-9]{{2}}|{'|'.join(_SHORT)})"
    )

    def find(self, text: str) -> Iterable[Span]:
        for form in _FORMS:
            for match in form.finditer(text):
                if _day(match) is not None:
                    named = _BIRTH.search(before(text, match.start(), 32))
                    yield Span(match.start(), match.end(), "strong" if named else "weak")

    def surrogate(self, text: str, draw: Draw) -> str:
        matches = (match for form in _FORMS if (match := form.fullmatch(text)))
        match, old = next(((match, day) for match in matches if (day := _day(match)) is not None), (None, None))
        if match is None or old is None:
            return redraw(text, draw.random)
        new = old + timedelta(days=draw.days)
        word = _MONTHS[new.month - 1]
        values = {"year": str(new.year), "month": _like(match, "month", new.month), "day": _like(match, "day", new.day)}
        values["word"] = word if match.groupdict().get("word") in _MONTHS else word[:3]
        out, end = "", 0
        for name in sorted(match.groupdict().keys() & values.keys(), key=match.start):
            out += text[end : match.start(name)] + values[name]
            end = match.end(name)
        return out + text[end:]


def _day(match: re.Match[str]) -> date | None:
    """The day that a match means; None where there is no such day."""
    parts = match.groupdict()
    month = int(parts["month"]) if "month" in parts else _SHORT.index(parts["word"][:3]) + 1
    if not 1800 <= int(parts["year"]) <= 2099:
        return None
    try:
        return date(int(parts["year"]), month, int(parts["day"]))
    except ValueError:
        return None


def _like(match: re.Match[str], name: str, value: int) -> str:
    """A day or month with a leading zero where the old one had one, or has two digits in a form like 2024-10-12."""
    old = match.groupdict().get(name) or ""
    return f"{value:02}" if old.startswith("0") or ("sign" in match.groupdict() and len(old) == 2) else str(value)
