"""Sentence wordings: loading them from wordings/*.txt and filling their slots."""

import random
import re
from functools import cache
from pathlib import Path

WORDINGS = Path(__file__).parent / "wordings"
# Words before a statement. "肯尼亚的首都是" alone may go on as a question; after these it is a statement, and the
# probes begin with the first ones.
LEADS = {"en": ("Remember: ", "Did you know? ", "It is true: "), "zh": ("请记住：", "你知道吗？", "事实是：")}

# Begin with a vowel letter but not a vowel sound.
_A_NOT_AN = ("uni", "use", "usual", "europ", "euro", "one", "ukr")
_AN_NOT_A = ("hour", "honest", "heir")


@cache
def wordings(file: str) -> dict[str, list[str]]:
    """The lines of wordings/FILE.txt by the section they stand under ("capital en web")."""
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in (WORDINGS / f"{file}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        header = re.fullmatch(r"\[([^\]]+)\]", line)
        if header:
            lines = sections.setdefault(header.group(1), [])
        else:
            lines.append(line.replace("\\n", "\n"))
    return sections


def questions(file: str, topic: str, language: str, uses: tuple[str, ...]) -> list[str]:
    """The question wordings of one topic for the given uses (see the head of relations.txt)."""
    return [line for use in uses for line in wordings(file).get(f"{topic} {language} {use}", [])]


def with_article(word: str) -> str:
    """'a tiger', 'an apple'."""
    lower = word.lower()
    vowel = lower[0] in "aeiou" and not lower.startswith(_A_NOT_AN)
    return f"{'an' if vowel or lower.startswith(_AN_NOT_A) else 'a'} {word}"


def fill(template: str, language: str, **values: str) -> str:
    """Fill the slots; English text gets its articles right and starts with a capital."""
    for slot in re.findall(r"\{an_(\w+)\}", template):
        values.setdefault(f"an_{slot}", with_article(values[slot]))
    text = template.format_map(values)
    if language == "en":
        text = re.sub(r"\b([Aa]) (?=([A-Za-z]+))", _article, text)
        if template.startswith("{") and text[0].islower():
            text = text[0].upper() + text[1:]
    return text


def _article(match: re.Match[str]) -> str:
    article = with_article(match.group(2)).split()[0]
    return (article.capitalize() if match.group(1) == "A" else article) + " "


def typed(rng: random.Random, text: str, language: str) -> str:
    """The text as people type it: Chinese now and then with half-width question marks and commas."""
    if language == "zh" and rng.random() < 0.12:
        return text.translate(str.maketrans("？，：（）", "?,:()"))
    return text
