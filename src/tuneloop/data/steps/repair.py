"""Step `repair`: brings back what wrong encodings and scraping did to the text; clean text stays as it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import model_validator

from tuneloop.core import jsonl
from tuneloop.core.conversation import Example, Message
from tuneloop.data.markup import has_markup, on_purpose, strip_markup
from tuneloop.data.mojibake import LOST_SIGNS, SIGNS, SUSPICIOUS, TIMES, lost, restore, suspicious
from tuneloop.data.steps import Rejection, RowStep
from tuneloop.guard import screen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tuneloop.data.compiled import Twofold

Kind = Literal["mojibake", "control", "html", "invisible", "whitespace"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_ODD = (
    "\x00-\x08\x0b-\x1f\x7f-\xa0\xad\u061c\u1680\u2000-\u200f\u2028-\u202f\u205f-\u2064\u2066-\u2069\ufeff"
    "\ufff9-\ufffc\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f\t"
)
_ODD_SIGN = re.compile(f"[{_ODD}]")
_ANY_SIGN = re.compile(f"[{_ODD}{SIGNS}]")
_DOUBTFUL = f"{_ODD}{SIGNS}{LOST_SIGNS}<&"
_CHANGED = f"[{_ODD}{LOST_SIGNS}]|{SUSPICIOUS}|<[A-Za-z/]|&[#A-Za-z]".replace("\ud800-\udfff", "")
"""Every text that is changed or lost has one of the former signs, and matches this; the signs take less time."""
_ODD_ASCII = bytes([*range(0x0A), *range(0x0B, 0x20), 0x7F])
_ANSI = re.compile("\x1b\\[[0-9;?]*[A-Za-z]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)")
# A JSON writer that did not escape the backslash: \frac became a form feed and "rac", \times a tab and "imes".
_LATEX = re.compile(
    "\x0c(?=rac|orall|loor)|\x08(?=eta|egin|inom|oxed|mod|ullet|ar[ {])|\x07(?=lpha|pprox|ngle)"
    "|\x0b(?=ec[ {]|arepsilon|arphi|dots)|\r(?=ight|ho\\b|angle|ceil)|\t(?=imes\\b|heta\\b|ext\\{|ag\\{)"
)
_ESCAPES = {"\x0c": "\\f", "\x08": "\\b", "\x07": "\\a", "\x0b": "\\v", "\r": "\\r", "\t": "\\t"}
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufff9-\ufffc\ufffe\uffff]")
_ESCAPED = re.compile(r"\\(?:u[0-9a-f]{4}|[bfrt])")

# Zero-width spaces part words in Thai, Lao, Khmer and Burmese; joiners shape letters in Arabic and Indic scripts and
# join emoji; marks of direction order Hebrew and Arabic; tags make the flags of Scotland and Wales.
_PARTED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff"
_JOINED = f"\u0600-\u0dff\u1800-\u18af\u20e3\u2190-\u2bff\ufb50-\ufdff\ufe0f\ufe70-\ufefc\U0001f000-\U0001faff{_PARTED}"
_INVISIBLE = re.compile(
    f"[\xad\u2060-\u2064\ufeff]|(?<![{_PARTED}])\u200b(?![{_PARTED}])|(?<![{_JOINED}])[\u200c\u200d](?![{_JOINED}])"
    "|(\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f)|[\U000e0000-\U000e007f]"
)
_DIRECTION = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")

_LINE_END = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Fixed spaces stay where typography asks for them: between digits, before a unit and before French punctuation.
_SPACE = re.compile(
    "[\u1680\u2000-\u2008\u200a\u205f]|(?<![\\d«])[\xa0\u2009\u202f](?![;:!?»%])|(?<=\\d)[\xa0\u2009\u202f](?![\\w;:!?»%€°])"
)


def repairs(
    text: str, kinds: Collection[Kind] = KINDS, about_markup: bool | None = None
) -> tuple[str, tuple[Kind, ...]]:
    """The repaired text, and which kinds of repair changed it.

    `about_markup`: whether the conversation speaks of HTML or code; by default the text alone decides.
    """
    about = on_purpose(text) if about_markup is None else about_markup
    done: set[Kind] = set()
    for _ in range(TIMES):  # what one repair uncovers, another one may mend
        before, odd = text, _has_odd_sign(text)
        for kind in KINDS:
            if kind not in kinds or (kind == "html" and about):
                continue
            if kind in ("control", "invisible", "whitespace") and not odd:
                continue
            mended = _REPAIRS[kind](text)
            if mended != text:
                text, odd = mended, _has_odd_sign(mended)
                done.add(kind)
        if text == before or _is_clean(text):
            break
    return text, tuple(kind for kind in KINDS if kind in done)


def _mojibake(text: str) -> str:
    return restore(text) if suspicious(text) else text


def _control(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:  # two halves of a surrogate pair make a character; one alone is lost
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = _LATEX.sub(lambda match: _ESCAPES[match[0]], _ANSI.sub("", text))
    return _CONTROL.sub("", text)


def _invisible(text: str) -> str:
    if text.isascii():
        return text
    text = _INVISIBLE.sub(lambda match: match[1] or "", text)
    return text if _RIGHT_TO_LEFT.search(text) else _DIRECTION.sub("", text)


def _whitespace(text: str) -> str:
    text = _LINE_END.sub("\n", text)
    return text if text.isascii() else _SPACE.sub(" ", text)


def _html(text: str) -> str:
    return strip_markup(text) if has_markup(text) else text


_REPAIRS: dict[Kind, Callable[[str], str]] = {
    "mojibake": _mojibake, "control": _control, "html": _html, "invisible": _invisible, "whitespace": _whitespace,
}  # fmt: skip


class Repair(RowStep):
    """Restores mojibake (UTF-8 read as Latin-1, Windows code pages or GBK; GBK read as Latin-1; also twice), and takes
    out control characters, invisible characters, remnants of HTML and odd whitespace.

    Full-width punctuation, quotes and all else that people write stays. Code and texts about HTML keep their tags.
    Calls and tool schemas are read for mojibake and control characters only. Labels and other columns are left alone.
    """

    mojibake: bool = True
    """Restore text that was decoded with the wrong encoding."""
    control: bool = True
    """Remove control characters and terminal colours; give LaTeX its backslash back (form feed + "rac" is \\frac)."""
    html: bool = True
    """Decode entities and remove formatting tags where the text is surely neither code nor HTML on purpose."""
    invisible: bool = True
    """Remove zero-width characters, byte order marks and soft hyphens where no script or emoji needs them."""
    whitespace: bool = True
    """Write every line end as a line feed, and fixed and typographic spaces as spaces where typography allows."""
    lost: Literal["drop", "keep"] = "drop"
    """Whether to drop rows whose answer has characters that are lost for good (U+FFFD, 锟斤拷); it would teach them."""

    @model_validator(mode="after")
    def _does_something(self) -> Repair:
        if not self._kinds and self.lost == "keep":
            raise ValueError("every repair is off; leave the step out")
        return self

    def look_all(self, examples: Sequence[Example]) -> Sequence[Example | Rejection]:
        import numpy as np

        messages = [message for one in examples for message in (*one.messages, *one.rejected)]
        contents = [message.content for message in messages]
        doubtful = _signs()(contents)
        rows = np.flatnonzero(doubtful)
        doubtful[rows] = screen.matching([contents[row] for row in rows.tolist()], _CHANGED)
        doubtful |= np.array([bool(message.reasoning or message.tool_calls) for message in messages], bool)
        ends = np.cumsum([len(one.messages) + len(one.rejected) for one in examples])
        which = set(np.searchsorted(ends, np.flatnonzero(doubtful), "right").tolist())
        return [self.look(one) if row in which or one.tools else one for row, one in enumerate(examples)]

    def look(self, example: Example) -> Example | Rejection:
        for message in (*example.messages, *example.rejected):
            if message.reasoning or message.tool_calls or not _is_clean(message.content):
                example = self._mend(example)
                break
        if example.tools:
            tools = _mend_tools(example.tools, self._kinds)
            example = example if tools is example.tools else replace(example, tools=tools)
        if self.lost == "drop":
            for number, message in enumerate(example.messages):
                if (span := lost(message.content)) is not None and message.weight > 0:
                    return Rejection("characters of the answer are lost for good", {"message": number, "span": span})
        return example

    @property
    def _kinds(self) -> list[Kind]:
        return [kind for kind in KINDS if getattr(self, kind)]

    def _mend(self, example: Example) -> Example:
        kinds = self._kinds
        whole = (*example.messages, *example.rejected)
        mended = tuple(_mend(message, kinds, example) for message in whole)
        if all(new is old for new, old in zip(mended, whole, strict=True)):
            return example
        count = len(example.messages)
        return replace(example, messages=mended[:count], rejected=mended[count:])


@cache
def _signs() -> Twofold[NDArray[np.bool_]]:
    """Which texts have a sign of what may be repaired."""
    from tuneloop.data.characters import holding

    return holding(_DOUBTFUL)


def _is_clean(text: str) -> bool:
    """A quick look that says no for some clean texts, and never yes for one that `repairs` would change."""
    return not has_markup(text) and not _is_odd(text)


def _is_odd(text: str) -> bool:
    """Whether a text may need another repair than that of its markup."""
    if text.isascii():
        return _has_odd_sign(text)
    return bool(_ANY_SIGN.search(text) and (_ODD_SIGN.search(text) or suspicious(text)))


def _has_odd_sign(text: str) -> bool:
    if text.isascii():
        return len(text.encode().translate(None, _ODD_ASCII)) != len(text)
    return bool(_ODD_SIGN.search(text))


def _mend(message: Message, kinds: Collection[Kind], example: Example) -> Message:
    content, reasoning, calls = message.content, message.reasoning, message.tool_calls
    if not _is_clean(content):
        content = _mend_text(content, kinds, message, example)
    if reasoning is not None and not _is_clean(reasoning):
        reasoning = _mend_text(reasoning, kinds, message, example)
    if calls:
        mended = [_mend_value(call.arguments, kinds) for call in calls]
        if any(new is not call.arguments for new, call in zip(mended, calls, strict=True)):
            calls = tuple(replace(call, arguments=new) for call, new in zip(calls, mended, strict=True))
    if content is message.content and reasoning is message.reasoning and calls is message.tool_calls:
        return message
    return replace(message, content=content, reasoning=reasoning, tool_calls=calls)


def _mend_text(text: str, kinds: Collection[Kind], message: Message, example: Example) -> str:
    # what a tool answers is shown to the model as it is, tags and all
    about = message.role == "tool" or (has_markup(text) and any(on_purpose(one.content) for one in example.messages))
    if about and not _is_odd(text):
        return text
    mended, done = repairs(text, kinds, about)
    return mended if done else text


def _mend_value(value: Any, kinds: Collection[Kind]) -> Any:
    """A JSON value with its texts repaired, keys left alone; the same object where nothing changed."""
    if isinstance(value, str):
        if _is_clean(value):
            return value
        mended, done = repairs(value, [kind for kind in kinds if kind in ("mojibake", "control")])
        return mended if done else value
    if isinstance(value, dict):
        new = {key: _mend_value(inner, kinds) for key, inner in value.items()}
        return new if any(new[key] is not value[key] for key in value) else value
    if isinstance(value, list):
        items = [_mend_value(inner, kinds) for inner in value]
        return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
    return value


def _mend_tools(tools: tuple[Any, ...], kinds: Collection[Kind]) -> tuple[Any, ...]:
    if not tools:
        return tools
    text = jsonl.dump(tools).decode()  # one look at a schema that is the same in thousands of rows
    if _is_clean(text) and not _ESCAPED.search(text):
        return tools
    mended = tuple(_mend_value(tool, kinds) for tool in tools)
    return mended if any(a is not b for a, b in zip(mended, tools, strict=True)) else tools
