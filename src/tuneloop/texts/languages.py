"""Which languages a text is written in, and how much of it in each. Knows nothing of Examples.

The writing decides for Chinese, Japanese, Korean and others; English is known by its function words; only what is left
goes to py3langid. Code, formulas, addresses, numbers and a few words alone have no language.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

from tuneloop.texts.words import Letters, count_words, letters

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

LOOKED_AT = 2000  # characters of a text, two thirds from its beginning: enough to be sure
FEWEST_WORDS = 4  # of a language with letters; names, options and "Yes" are the same in many languages
FEWEST_CHARACTERS = 2  # of Chinese, Japanese and Korean
ENOUGH = (240, 600)  # characters in which English shows by a different common word every 16 words; others have two
SURE = 0.97  # py3langid's probability, below which a text's language is not known
EMBEDDED = 0.3  # a smaller share of Latin words in a Chinese text are terms, part of that Chinese

# By writing, the languages that py3langid may choose among: with all 142 it calls short English phrases Ligurian.
_CANDIDATES = {
    "latin": "en de fr es it pt nl sv da no fi pl cs sk hu ro tr id ms vi ca hr sl et lt lv sq af eu ga is tl sw la "
    "zxx",
    "cyrillic": "ru uk be bg mk sr kk ky mn tg zxx",
    "arabic": "ar fa ur ps ug zxx",
    "southern": "hi mr ne sa bn as pa gu or ta te kn ml si th lo my km ka am zxx",
}
_ONLY = {"greek": "el", "hebrew": "he"}
_BY_WRITING = frozenset(" ".join(["zh ja ko", *_CANDIDATES.values(), *_ONLY.values()]).split()) - {"zxx"}

_ENGLISH = frozenset(
    "the and of to that with this you your which what they their there these those would should could from have been "
    "had were are is was it its how when why who will can not about into than then because his she we our my has many "
    "each every first after before while between using some other two three four five six number year day days "
    "people cost make makes made give write create generate describe explain following sentence means therefore".split()
)
"""The commonest words of English prose, tasks and sums, as far as other languages do not have them."""
_HAN_LEADS = bytes(range(0xE4, 0xEA))
_HANGUL_LEADS = bytes(range(0xEA, 0xEE))
_KANA_LEADS = (b"\xe3\x81", b"\xe3\x82", b"\xe3\x83")
_NO_PROSE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]+`|https?://\S+|www\.\S+|\$\$.+?\$\$|\$[^$\n]+\$|\\[A-Za-z]+|<[^<>\n]{1,200}>", re.S
)
_ADDRESS = re.compile(r"[\w.+-]+@[\w.-]+")
_NUMBER = re.compile(r"[\d_]+")
_LATIN = re.compile("[^\x00-\u024f\u2019]+")
_CODE_LINE = re.compile(
    r"(?m)^[ \t]*(?:[#/*@$<>{}()\[\]|]+|import |from \w+ import|def |class |return\b|if \(|for \(|while |else|elif |"
    r"print|public |private |var |let |const |int |void |function |SELECT |INSERT |CREATE |\w+ ?(?:[-+*/]?=|\()).*$"
    r"|^.*[;{}]$|^.*(?:==|=>|->|\(\)|\w\(\w*\)|\w_\w|\w\[\w+\]).*$"
)


class Found(NamedTuple):
    """The languages of a text with about how many words there are in each, and the confidence in the doubtful one."""

    words: dict[str, int]
    confidence: float = 1.0


NONE = Found({})


def is_language(code: str) -> bool:
    """Whether texts in the language of an ISO 639 code can be known as such."""
    return code in _BY_WRITING or (code != "zxx" and code in _model().nb_classes)


def identify(text: str, kept: frozenset[str] = frozenset()) -> Found:
    """The languages of a text; none where it has no prose or too little.

    `kept`: those that matter; they are candidates even where they are rare, and a text that may be in one of them has
    no language rather than a doubtful other one.
    """
    return identify_all([text], kept)[0]


def identify_all(texts: Sequence[str], kept: frozenset[str] = frozenset()) -> list[Found]:
    """`identify` of many texts; those that are plainly Chinese are known by one look at all bytes."""
    heads = list(map(_head, texts))
    chinese = iter(_chinese([head.encode("utf-8", "surrogatepass") for head in heads if not head.isascii()]))
    return [
        _english(head) or _western(_prose(head), "latin", kept)
        if head.isascii()
        else Found({"zh": _words(han)})
        if (han := next(chinese))
        else _mixed(head, kept)
        for head in heads
    ]


def _mixed(text: str, kept: frozenset[str]) -> Found:
    """The languages of a text that is neither ASCII nor plainly Chinese."""
    found = letters(text)
    east = _eastern(found)
    if east is not None and found.latin > east.characters:
        text = _prose(text)
        found = letters(text)
        east = _eastern(found)
    if east is None:
        return _without_han(text, found, kept)
    name, characters = east
    words = found.latin / 5  # letters of a word with its share of the spaces
    if words < EMBEDDED * (words + _words(characters)):
        return Found({name: _words(characters)})
    other = _without_han(_LATIN.sub(" ", text), Letters(latin=found.latin), kept)
    return Found({name: _words(characters), **other.words}, other.confidence)


def _head(text: str) -> str:
    """What is looked at of a text."""
    head = LOOKED_AT * 2 // 3
    return text if len(text) <= LOOKED_AT else f"{text[:head]}\n{text[head - LOOKED_AT :]}"


def _chinese(texts: Sequence[bytes]) -> list[int]:
    """The Han characters of each text (UTF-8) that is plainly Chinese: three in five of its bytes are theirs, and it
    has neither kana nor Hangul; 0 for all others."""
    import numpy as np

    data = np.frombuffer(b"\n".join([*texts, b""]), np.uint8)
    sizes = np.array([len(text) + 1 for text in texts], np.int64)
    starts = np.cumsum(sizes) - sizes
    others = data - _HANGUL_LEADS[0] < len(_HANGUL_LEADS)
    others[:-1] |= (data[:-1] == _KANA_LEADS[0][0]) & (data[1:] - _KANA_LEADS[0][1] < len(_KANA_LEADS))
    han = np.add.reduceat((data - _HAN_LEADS[0] < len(_HAN_LEADS)).view(np.uint8), starts, dtype=np.int64)
    plain = (han * 5 > sizes - 1) & (han >= FEWEST_CHARACTERS)
    return np.where(plain & ~np.logical_or.reduceat(others, starts), han, 0).tolist()


def _words(characters: int) -> int:
    return (characters * 2 + 2) // 3  # a Chinese word has one and a half characters


def _prose(text: str) -> str:
    """The text without code, addresses and formulas; nothing where it is JSON."""
    stripped = text.strip()
    if stripped[:1] in ("{", "[") and stripped[-1:] in ("}", "]"):
        return ""
    text = _NO_PROSE.sub(" ", text)
    return _ADDRESS.sub(" ", text) if "@" in text else text


class _East(NamedTuple):
    language: str
    characters: int


def _eastern(found: Letters) -> _East | None:
    """Chinese, Japanese or Korean, with its characters, where they carry a good part of the text."""
    if found.kana > 1 and found.kana * 8 > found.han:  # Chinese quotes a little kana at most
        name, characters = "ja", found.han + found.kana
    elif found.hangul > found.han:
        name, characters = "ko", found.hangul
    else:
        name, characters = "zh", found.han
    enough = characters >= FEWEST_CHARACTERS and characters * 20 > sum(found)
    return _East(name, characters) if enough else None


def _english(text: str) -> Found | None:
    for length in ENOUGH if len(text) > ENOUGH[0] else ENOUGH[:1]:  # most of it shows in the first few words
        words = text[:length].lower().split()
        hits = len(_ENGLISH.intersection(words))
        if len(words) >= FEWEST_WORDS and hits >= 2 and hits * 16 >= len(words):
            return Found({"en": max(len(words), len(text) // 6)})
    return None


def _without_han(text: str, found: Letters, kept: frozenset[str]) -> Found:
    script = "latin"
    if found.latin < sum(found):
        script = max(("latin", *_CANDIDATES, *_ONLY), key=lambda name: getattr(found, name))
    return (_english(text) if script == "latin" else None) or _western(_prose(text), script, kept)


@lru_cache(maxsize=4_096)  # prompts come again, and the statistics take 0.1 ms
def _western(text: str, script: str, kept: frozenset[str]) -> Found:
    if script == "latin":
        text = _CODE_LINE.sub(" ", text)
    count = count_words(_NUMBER.sub(" ", text))
    if count < FEWEST_WORDS:
        return NONE
    if script in _ONLY:
        return Found({_ONLY[script]: count})
    language, probability = _identifier(script, kept).classify(text)
    doubtful = probability < SURE and (script == "latin" or not kept.isdisjoint(_CANDIDATES[script].split()))
    if language == "zxx" or doubtful:
        return NONE
    return Found({language: count}, float(probability))


@cache
def _identifier(script: str, kept: frozenset[str]) -> LanguageIdentifier:
    """py3langid restricted to languages of a writing. Loading takes about a second and 100 MB, once a process."""
    from py3langid.langid import LanguageIdentifier

    whole = _model()
    one = LanguageIdentifier(
        whole.nb_ptc, whole.nb_pc, whole.nb_classes, whole.tk_nextmove, whole.tk_output, True, tk_row=whole.tk_row
    )
    one.set_languages(set(_CANDIDATES[script].split()) | (kept & set(whole.nb_classes)))
    return one


@cache
def _model() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)
