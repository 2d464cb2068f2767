"""What answers repeat word for word of the training answers, against what the references themselves repeat.

A piece counts from 8 words on, in Chinese and Japanese from 13 characters (about as much said: a Chinese word has 1.6).
What also stands in the row's own prompt is quoted from there, and does not count. References were never trained on,
so what they share with training answers is the set's own wording; only what answers have beyond that is memorised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuneloop.core.conversation import Example
from tuneloop.evaluate.contestant import Answer
from tuneloop.evaluate.observing import Observed, reference
from tuneloop.evaluate.text import TOKEN, has_unspaced, nfkc
from tuneloop.pages.numbers import interval, number, probability, share
from tuneloop.stats import intervals, paired
from tuneloop.track.console import decided, progress

if TYPE_CHECKING:
    from tuneloop.evaluate.metrics import Array

Json = dict[str, Any]
WORDS, CHARACTERS = 8, 13
SIGNATURE = f"verbatim|nfkc|casefold|{WORDS}_words_or_{CHARACTERS}_unspaced_characters|not_in_prompt|share_of_tokens|v1"
LISTED = 20
"""Of the longest pieces."""
BLOCK = 256  # training rows between two signs of progress


@dataclass(frozen=True)
class Text:
    """A text as tokens, with their places in it."""

    shown: str
    tokens: tuple[str, ...]
    places: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, text: str) -> Text:
        normal = nfkc(text)
        found = list(TOKEN.finditer(normal))
        shown = text if len(text) == len(normal) else normal  # full-width punctuation as it was written
        return cls(shown, tuple(m.group().casefold() for m in found), tuple(m.span() for m in found))

    @property
    def n(self) -> int:
        """Length of its pieces in tokens, by its script: that of most of its tokens."""
        return CHARACTERS if 2 * sum(map(has_unspaced, self.tokens)) > len(self.tokens) else WORDS

    def pieces(self, n: int | None = None) -> Iterator[tuple[str, ...]]:
        """All runs of n tokens, in order."""
        n = n or self.n
        return (self.tokens[start : start + n] for start in range(len(self.tokens) - n + 1))


@dataclass(frozen=True)
class Repeated:
    """What one text repeats: its tokens that stand in a repeated piece, of how many, and its longest run of them."""

    tokens: int
    of: int
    longest: str = ""
    length: int = 0
    source: str = ""

    @property
    def share(self) -> float:
        return self.tokens / self.of


def of_answers(
    examples: Sequence[Example], observed: Mapping[str, Observed], trained: Sequence[Example], confidence: float
) -> Json:
    """`memorisation_report` of what contestants answered, with progress."""
    with progress("word for word of training", len(trained)) as bar:
        answers = {who: found.answers for who, found in observed.items() if found.answers}
        value = memorisation_report(examples, answers, trained, confidence, bar.advance)
    for line in in_words(value):
        decided("memorised", line)
    return value


def in_words(value: Json) -> list[str]:
    """A line of each contestant whose answers repeat more of the training answers than the references do."""
    lines: list[str] = []
    for who, excess in value["excess"].items():
        if excess["low"] is not None and excess["low"] > 0:
            own, other = (share(value["shares"][name]["value"]) for name in (who, "reference"))
            beyond = f"{number(excess['value'], True)}, {interval(excess, True)}, p {probability(excess['p'])}"
            lines.append(
                f"answers of {who} repeat {own} of their words from training answers, word for word in pieces of "
                f"{value['words']} and more (references {other}; paired difference {beyond})"
            )
    return lines


def memorisation_report(
    examples: Sequence[Example],
    answers: Mapping[str, Sequence[Answer]],
    trained: Iterable[Example],
    confidence: float,
    advance: Any = lambda rows: None,
) -> Json:
    """The part `memorisation` of report.json: shares of references and of each contestant's answers, paired per row.

    `trained` are the training rows, read once; what is remembered of them is what the answers say too.
    """
    prompts = [Text.of("\n".join(message.content for message in example.prompt)) for example in examples]
    texts = {"reference": [_text(reference(example)) for example in examples]}
    texts |= {who: [_text(answer.text) for answer in given] for who, given in answers.items()}
    wanted = {piece for given in texts.values() for text in given if text for piece in text.pieces()}
    known, rows = _known(wanted, trained, advance)
    found = {
        who: [_repeated(text, prompt, known) for text, prompt in zip(given, prompts, strict=True)]
        for who, given in texts.items()
    }
    out: Json = {"signature": SIGNATURE, "training_rows": rows, "words": WORDS, "characters": CHARACTERS}
    out["shares"] = {who: _share(given, confidence) for who, given in found.items()}
    out["excess"] = {who: _excess(found[who], found["reference"], confidence) for who in answers}
    out["longest"] = {who: _longest(examples, found[who]) for who in answers}
    return out


def _text(text: str | None) -> Text | None:
    """None for what is too short to repeat a piece."""
    found = Text.of(text or "")
    return found if len(found.tokens) >= found.n else None


def _known(
    wanted: set[tuple[str, ...]], trained: Iterable[Example], advance: Any
) -> tuple[dict[tuple[str, ...], str], int]:
    """(of the wanted pieces those in training answers, with the first row that has each; training rows)."""
    known: dict[tuple[str, ...], str] = {}
    lengths = {len(piece) for piece in wanted}
    rows = 0
    for example in trained:
        rows += 1
        if rows % BLOCK == 0:
            advance(BLOCK)
        place = f"{example.origin.source}, row {example.origin.row}"
        for message in example.messages:
            if message.weight > 0:
                text = Text.of(message.content)
                for n in lengths:  # a mixed text may hold a piece of either script
                    for piece in text.pieces(n):
                        if piece in wanted:
                            known.setdefault(piece, place)
    advance(rows % BLOCK)
    return known, rows


def _repeated(text: Text | None, prompt: Text, known: Mapping[tuple[str, ...], str]) -> Repeated | None:
    if text is None:
        return None
    asked = set(prompt.pieces(text.n))
    sources = [known.get(piece) if piece not in asked else None for piece in text.pieces()]
    covered = [False] * len(text.tokens)
    runs: list[tuple[int, int]] = []
    for start, source in enumerate(sources):
        if source is not None:
            covered[start : start + text.n] = [True] * text.n
            if runs and start <= runs[-1][1]:
                runs[-1] = (runs[-1][0], start + text.n)
            else:
                runs.append((start, start + text.n))
    if not runs:
        return Repeated(0, len(covered))
    first, last = max(runs, key=lambda run: run[1] - run[0])
    said = text.shown[text.places[first][0] : text.places[last - 1][1]]
    likely = Counter(source for source in sources[first : last - text.n + 1] if source).most_common(1)[0][0]
    return Repeated(sum(covered), len(covered), said, last - first, likely)


def _share(given: Sequence[Repeated | None], confidence: float) -> Json:
    """Of all tokens of the texts that are long enough, those in repeated pieces; bootstrap over rows."""
    import numpy as np

    counts_N2 = np.array([(one.tokens, one.of) for one in given if one], np.float64).reshape(-1, 2)
    if not len(counts_N2):
        return {"value": None, "n": 0, "low": None, "high": None}
    low, high = intervals.bootstrap_sums(counts_N2, _ratio, confidence)
    return {"value": float(_ratio(counts_N2.sum(axis=0)[None])[0]), "n": len(counts_N2), "low": low, "high": high}


def _excess(given: Sequence[Repeated | None], base: Sequence[Repeated | None], confidence: float) -> Json:
    """Answers minus references, over the rows where both are long enough."""
    import numpy as np

    pairs = [((b.tokens, b.of), (a.tokens, a.of)) for a, b in zip(given, base, strict=True) if a and b]
    if not pairs:
        return {"value": None, "n": 0, "low": None, "high": None, "p": None}
    base_N2, given_N2 = np.array(pairs, np.float64).swapaxes(0, 1)
    found = paired.compare_sums(base_N2, given_N2, _ratio, confidence)
    return {"value": found.value, "n": len(pairs), "low": found.low, "high": found.high, "p": found.p}


def _ratio(sums_R2: Array) -> Array:
    return sums_R2[:, 0] / sums_R2[:, 1]


def _longest(examples: Sequence[Example], given: Sequence[Repeated | None]) -> list[Json]:
    found = [(one, example) for one, example in zip(given, examples, strict=True) if one and one.length]
    found.sort(key=lambda pair: -pair[0].length)
    return [
        {"id": example.id, "tokens": one.length, "share": one.share, "text": one.longest, "source": one.source}
        for one, example in found[:LISTED]
    ]
