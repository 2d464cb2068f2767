"""HTML that was left in prose by whoever scraped it: entities, <br>, <p> and formatting tags.

Code, mathematics and texts that are HTML, XML or Markdown on purpose stay as they are: a tag is taken out only where
all tags of the text are known, paired and without a meaning of their own, and nobody speaks of HTML.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable

# Fenced and indented code, inline code, LaTeX, and the lines of Markdown tables, where <br> is the only line break.
_KEPT = re.compile(
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`|\$\$.+?\$\$|\$[^$\n]+\$|\\\(.+?\\\)|\\\[.+?\\\]"
    r"|^(?: {4}|\t)[^\n]*|^[ \t]*\|[^\n]*",
    re.S | re.M,
)
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9:]*)((?:\s+[\w:-]+\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*'|[^\s\"'<>=`]+))*)\s*/?>")
_LIKE_A_TAG = re.compile(r"<[A-Za-z/!?]")
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,8}[0-9]?);")
# Not all that HTML knows: &sum; and &num; are addresses in C.
_NAMED = frozenset(
    "amp lt gt quot apos nbsp ensp emsp thinsp shy zwnj zwj lsquo rsquo ldquo rdquo sbquo bdquo laquo raquo lsaquo "
    "rsaquo mdash ndash hellip middot bull trade deg euro pound yen cent sect frac12 frac14 frac34 eacute egrave "
    "ecirc euml agrave acirc aacute auml aring atilde ccedil ntilde oacute ocirc ouml otilde oslash uacute ugrave "
    "ucirc uuml iacute icirc iuml szlig Eacute Agrave Auml Ouml Uuml Ccedil Ntilde Aring Oslash".split()
)
_BREAKS = frozenset("br hr".split())
_BLOCKS = frozenset("p div h1 h2 h3 h4 h5 h6 ul ol li blockquote section article center".split())
_INLINE = frozenset("b strong i em u span font small big a o:p".split())
_OPTIONAL_END = frozenset("p li".split())
_SPEAKS_OF = tuple(
    "html xml markup markdown javascript react angular bootstrap svg wiki italic webpage website frontend front-end "
    "escap entity entities ampersand scrap regex parse parsing template "
    "网页 网站 标签 前端 代码 标记 转义 实体 爬 正则 解析 模板 加粗 粗体 斜体 網頁 網站 標籤 程式碼".split()
)
_WORDS = tuple("css js php vue dom tag bold web code".split())
_AS_WORDS = re.compile(r"\b(?:css|jsx?|php|vue|dom|tags?|bold|code)\b|web\s(?:page|site)")
_CODE_LINE = re.compile(r"(?m)[;{}][ \t]*$|^\s*#include|=>|&&|\|\||==|^\s*(?:def|class|import|function) ")


def has_markup(text: str) -> bool:
    """Whether it is worth while to call `strip_markup`."""
    return ("<" in text and bool(_TAG.search(text))) or ("&" in text and bool(_ENTITY.search(text)))


def on_purpose(text: str) -> bool:
    """Whether a text speaks of HTML or code, so that markup in the conversation is what it is about."""
    small = text.lower()  # looking for each word is twenty times as fast as one pattern of all, in any case
    if any(word in small for word in _SPEAKS_OF):
        return True
    if any(word in small for word in _WORDS) and _AS_WORDS.search(small):
        return True
    return len(_CODE_LINE.findall(text)) > 1


def strip_markup(text: str) -> str:
    """The text without remnants of HTML; the same text where it is not sure that they are remnants."""
    outside = _KEPT.sub(" ", text)
    without = _outside_code(text, _strip_tags).strip("\n") if _are_remnants(outside) else text
    if without == text and _LIKE_A_TAG.search(outside):
        return text
    plain = _outside_code(without, _decode_entities)
    escaped = _KEPT.sub(" ", plain)
    if _LIKE_A_TAG.search(escaped):  # the HTML had been escaped as a whole, or somebody shows a tag
        return _outside_code(plain, _strip_tags).strip("\n") if _are_remnants(escaped) else without
    return plain


def _are_remnants(text: str) -> bool:
    found = _TAG.findall(text)
    if not found or len(found) != len(_LIKE_A_TAG.findall(text)):
        return False
    names = [name.lower() for _, name, _ in found]
    if not set(names) <= _BREAKS | _BLOCKS | _INLINE:
        return False
    balance = Counter[str]()
    for (closing, _, _), name in zip(found, names, strict=True):
        balance[name] += -1 if closing else 1
    paired = all(count == 0 or name in _BREAKS | _OPTIONAL_END for name, count in balance.items())
    whole = text.lstrip().startswith("<") and text.rstrip().endswith(">")
    return paired and (len(found) > 2 or names[0] == "br" or whole)


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    parts: list[str] = []
    end = 0
    for kept in _KEPT.finditer(text):
        parts += [change(text[end : kept.start()]), kept[0]]
        end = kept.end()
    return "".join([*parts, change(text[end:])])


def _strip_tags(text: str) -> str:
    plain = _TAG.sub(_instead, re.sub(r"(<br\s*/?>|</p>|</li>|</div>)[ \t]*\r?\n", r"\1", text))
    return re.sub(r"\n{3,}", "\n\n", plain) if plain != text else text


def _instead(tag: re.Match[str]) -> str:
    closing, name = tag[1], tag[2].lower()
    if name == "li":
        return "" if closing else "\n- "
    if name in _BREAKS:
        return "\n"
    if name in _BLOCKS:
        return "\n\n" if name == "p" or name.startswith("h") else "\n"
    return ""


def _decode_entities(text: str) -> str:
    for _ in range(2):  # &amp;quot; had been escaped twice
        once = _ENTITY.sub(_character, text)
        if once == text:
            break
        text = once
    return text


def _character(entity: re.Match[str]) -> str:
    name = entity[0][1:-1]
    return html.unescape(entity[0]) if name.startswith("#") or name in _NAMED else entity[0]
