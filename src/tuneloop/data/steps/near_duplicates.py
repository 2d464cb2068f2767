"""Step `near_duplicates`: keeps one of the rows that say nearly the same, in Chinese as in English."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeInt

from tuneloop.core.conversation import Example, JsonObject, Message
from tuneloop.data.stance import Stance, are_cued, are_short, asked, core, dispute, marks, question_key, stance
from tuneloop.data.steps import Rejection, Rows, SetStep, Verdict
from tuneloop.texts.words import normalise, remember, spoken

if TYPE_CHECKING:
    import numpy as np

    from tuneloop.data.near import Reader, Seen, View
    from tuneloop.data.steps import Keys

REASON = "says nearly the same as another row"


class NearDuplicates(SetStep):
    """Drops all but one of rows that say nearly the same, and tells the split which rows belong together.

    Alike are two rows whose texts, as sets of shingles (5 characters; 3 in Chinese), have a Jaccard similarity of at
    least `threshold`; candidates come from MinHash, each is verified on the texts. What is like a row that is like a
    third belongs to one cluster with both. Case, width and spacing do not count, system messages are not compared.

    Of whole conversations only those are dropped whose answers are alike too (half the threshold at least) and do not
    contradict one another: other questions about the same passage stay, conflicting labels are left to
    `label_conflicts`.
    """

    of: Literal["conversation", "prompt", "answer"] = "conversation"
    """What is compared: all messages but the system's, those before the last supervised one, or that one. With `prompt`
    rows with one question and several good answers lose all but one; with `answer`, every second "yes"."""
    threshold: float = Field(default=0.7, ge=0.5, le=1)
    """The least similarity. Pairs at 0.7 are found with probability 0.9998, at 0.6 with 0.99, at 0.5 with 0.87."""
    min_words: NonNegativeInt = 0
    """Texts of fewer words (a Chinese character is one) are alike only when they are equal: "2+4等于几？" and
    "5+4等于几？" share most of their shingles and mean different things."""
    keep: Literal["first", "longest"] = "first"
    """Which row of a cluster stays; of several longest ones the first."""
    drop: bool = True
    """false: all rows stay; the clusters only keep alike rows together in the split."""
    ignore_shared: float | None = Field(default=0.1, gt=0, lt=1)
    """Text that more than this share of the rows have in common (estimated on 500) is taken for a prompt template and
    does not make them alike, so that "Positive or negative? …" asked of many reviews loses none of them. It counts
    where the answer is prose, and in answers. null: it always counts."""

    def key_options(self) -> JsonObject:
        return {"of": self.of}

    def keys(self, examples: Sequence[Example]) -> Keys:
        """145 bytes a row: a digest of the text, its length, its words, and the signature of which 4 bytes each make a
        band."""
        import numpy as np

        from tuneloop.data import near
        from tuneloop.data.characters import count_words

        # equal conversations with different labels are no plain copies: they go the long way
        labels = [str(one.meta.get("label") or "") for one in examples] if self.of == "conversation" else None
        texts = self._texts(examples)
        return {**near.keys_of(texts, self._bare(examples), labels), "words": count_words(texts).astype(np.uint32)}

    def decide(self, rows: Rows) -> Verdict:
        import numpy as np

        from tuneloop.data import near

        if not len(rows):
            return Verdict(clusters=np.empty(0, np.int64))
        reader = self._reader(rows)
        found = near.search(rows.keys, self.threshold, reader, self._same, self.min_words)
        clusters = found.alike.groups()
        if not self.drop:
            return Verdict(clusters=clusters)
        kept = self._kept(found.same.groups(), rows).tolist()
        dropped = [(keeper, row) for row, keeper in enumerate(kept) if row != keeper]
        known = [found.links[row][1] if found.links[row][0] == keeper else None for keeper, row in dropped]
        asked = [pair for pair, similarity in zip(dropped, known, strict=True) if similarity is None]
        measured = iter(near.similarities(asked, rows.keys, reader))
        rejected: dict[int, Rejection] = {}
        for (keeper, row), similarity in zip(dropped, known, strict=True):
            similarity = next(measured) if similarity is None else similarity
            evidence: JsonObject = {"kept": rows.place(keeper), "similarity": round(similarity, 4)}
            if similarity < self.threshold:  # they are in one cluster by way of others
                neighbour, close = found.links[row]
                evidence["through"] = {**rows.place(neighbour), "similarity": round(close, 4)}
            rejected[row] = Rejection(REASON, evidence)
        return Verdict(rejected, clusters)

    def clusters(self, rows: Rows) -> np.ndarray:
        """For each row the first row of its cluster (int64), whatever `drop` says; for the split."""
        from tuneloop.data import near

        reader = self._reader(rows)
        return near.search(rows.keys, self.threshold, reader, self._same, self.min_words).alike.groups()

    def _reader(self, rows: Rows) -> Reader:
        import numpy as np

        from tuneloop.data import near

        if self.ignore_shared is None:
            return near.Reader(rows, self._views, np.empty(0, np.uint32))
        return near.Reader(rows, self._views, near.shared_shingles(rows, self._views, self.ignore_shared))

    def _kept(self, groups: np.ndarray, rows: Rows) -> np.ndarray:
        """For each row the row of its group that stays."""
        import numpy as np

        if self.keep == "first":
            return groups
        length = rows.keys["length"].astype(np.int64)
        order = np.lexsort((np.arange(len(groups)), -length, groups))
        fresh = np.ones(len(order), bool)
        fresh[1:] = groups[order[1:]] != groups[order[:-1]]
        kept = np.empty(len(order), np.int64)
        kept[order] = order[np.maximum.accumulate(np.where(fresh, np.arange(len(order)), 0))]
        return kept

    def _bare(self, examples: Sequence[Example]) -> list[bool]:
        """Whether a template in a row is not compared: what tells two rows with short answers apart stands in their
        prompts, two long answers tell by themselves."""
        return are_short(examples) if self.of == "conversation" else [self.of == "prompt"] * len(examples)

    def _views(self, examples: Sequence[Example]) -> list[View]:
        from tuneloop.data.near import View

        texts, bare = self._texts(examples), self._bare(examples)
        more = _claims(examples, texts) if self.of == "conversation" and self.drop else [None] * len(texts)
        return [View((text,), short, claim) for text, short, claim in zip(texts, bare, more, strict=True)]

    def _same(self, one: Seen, other: Seen, shared: int) -> bool:
        """Whether one of two rows with alike texts, which have so many shingles in common, can go."""
        if self.of != "conversation" or not self.drop:
            return True
        from tuneloop.data.shingles import jaccard, least_likeness_of_ends, sets

        claim, other_claim = one[1], other[1]
        if _disagree(claim, other_claim):
            return False
        if 0 < claim.stance.answer == other_claim.stance.answer or claim.said == other_claim.said:
            return True
        texts, answers = (claim.text, other_claim.text), (claim.said, other_claim.said)
        least = self.threshold / 2
        return least_likeness_of_ends(shared, texts, answers) >= least or jaccard(*sets(answers)) >= least

    def _texts(self, examples: Sequence[Example]) -> list[str]:
        """What is compared of each Example."""
        from tuneloop.data.forms import normalise

        parts = [self._parts(example) for example in examples]
        forms = iter(normalise([text for one in parts for text in one]))
        return [" ".join([form for form in islice(forms, len(one)) if form]) for one in parts]

    def _parts(self, example: Example) -> list[str]:
        if self.of == "answer":
            return [_spoken(example.answer)]
        if self.of == "prompt":
            return asked(example)
        return [_spoken(message) for message in example.messages if message.role != "system"]


def _joined(texts: Sequence[str]) -> str:
    """The texts normalised, which is what normalising them together gives: messages are asked for again and again."""
    return " ".join(filter(None, map(normalise, texts)))


class _Claim:
    """What a row asks, says and commits itself to, worked out once and only when the row is like another.

    `text`: the whole conversation as it is compared. `mark`: that of the answer (`stance.marks`).
    """

    def __init__(self, example: Example, text: str, mark: int, cued: bool) -> None:
        self._example, self.text, self.mark, self._cued = example, text, mark, cued

    @cached_property
    def stance(self) -> Stance:
        """Without its wording."""
        return stance(self._example, worded=False, cued=self._cued)

    @cached_property
    def worded(self) -> Stance:
        return stance(self._example)

    @cached_property
    def core(self) -> bytes:
        return core(self._example)

    @cached_property
    def question(self) -> int:
        return question_key(self._example)

    @cached_property
    def said(self) -> str:
        """All answers, normalised."""
        return _joined([_spoken(message) for message in self._example.messages if message.weight > 0])


def _claims(examples: Sequence[Example], texts: Sequence[str]) -> list[_Claim]:
    """The claims of Examples which say that as a whole."""
    from tuneloop.data.forms import normalise

    contents = [example.answer.content for example in examples]
    remember(contents, answers := normalise(contents))  # they are asked for one by one where rows are alike
    return list(map(_Claim, examples, texts, marks(answers), are_cued(answers)))


def _disagree(one: _Claim, other: _Claim) -> bool:
    """Whether the answers contradict one another; their wordings are asked for only where they may be equal."""
    if one.mark != other.mark or one.core != other.core:
        return dispute(one.stance, other.stance, same_question=False) is not None
    same = one.worded.wording == other.worded.wording and one.question == other.question
    return dispute(one.worded, other.worded, same) is not None


def _spoken(message: Message) -> str:
    """What a message says, its reasoning included: it is trained on as well."""
    return f"{message.reasoning}\n{spoken(message)}" if message.reasoning else spoken(message)
