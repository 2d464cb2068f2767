"""judge: another model compares each answer with the reference, or with the other model's answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PrivateAttr

from tuneloop.core import digest
from tuneloop.core.conversation import Message
from tuneloop.evaluate import judging
from tuneloop.evaluate.metrics import Json, Metric, Observation, Score
from tuneloop.generate.engine import Completion, Decoding, Engine, Request

if TYPE_CHECKING:
    from typing import Self

PEOPLE = {"win": 1.0, "better": 1.0, "胜": 1.0, "更好": 1.0, "tie": 0.5, "same": 0.5, "平": 0.5, "一样": 0.5,
          "lose": 0.0, "worse": 0.0, "负": 0.0, "更差": 0.0}  # fmt: skip
"""Words for people's verdict on the answer, and the score that says the same."""
_OTHER = {"first": "second", "second": "first", "tie": "tie"}
_WANTED = {"text": "[[A]], [[B]] or [[C]]; a small judge may keep to form: json", "json": '{"verdict": "A"}, B or C'}
_WORTH = {"first": 1.0, "second": 0.0, "tie": 0.5}


class Judge(Metric):
    """1 where a judge prefers the answer, 0 where it prefers the other one, 0.5 for a tie (Zheng et al. 2023, arXiv
    2306.05685). It is asked twice, with the answers in both orders; verdicts that do not agree are a tie.

    The judge answers behind an OpenAI-compatible API: what is judged is sent there. A judge is no measuring device:
    give people's verdicts in a column (win, tie, lose), and the report says how far the judge agrees with them.
    """

    BETTER = "higher"
    NEEDS = "generation"
    AGGREGATION = "mean"
    SLOW = True

    model: str = ""
    """The judge's name at the API."""
    base_url: str = "http://127.0.0.1:8000/v1"
    """The API's address."""
    key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; keys stand in no recipe."""
    against: Literal["reference", "rival"] = "reference"
    """What the answer is compared with: the `reference`, or the answer of the other model (the `rival`)."""
    criteria: str = ""
    """What makes an answer better, in place of the usual: correct, as asked, clear."""
    language: Literal["auto", "en", "zh"] = "auto"
    """Of the judge's prompt; auto: Chinese where the request and the answers are."""
    form: Literal["text", "json"] = "text"
    """text: reasons, then the verdict; json: the verdict alone, in a form to which servers that constrain answers
    (`response_format`) hold even a small judge that forgets it."""
    people: str | None = None
    """The column with people's verdict on the answer: win, tie or lose (胜, 平, 负)."""
    concurrency: int = Field(default=8, ge=1, le=256)
    """Questions asked at the same time."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds that an answer may take."""
    max_new_tokens: int = Field(default=512, ge=1)
    """Length of the judge's answer, reasons included."""

    _engine: Engine | None = PrivateAttr(default=None)
    _asked: dict[str, Completion] = PrivateAttr(default_factory=dict[str, Completion])

    @property
    def signature(self) -> str:
        how = f"prompts:{judging.prompts_digest()}|criteria:{self.criteria or 'usual'}|language:{self.language}"
        form = f"|form:json:{digest.short(digest.of_value(judging.AS_JSON), 8)}" if self.form == "json" else ""
        return (
            f"judge|model:{self.model}|against:{self.against}|{how}{form}|both_orders|tokens:{self.max_new_tokens}|v1"
        )

    def asking(self, engine: Engine) -> Self:
        """The same metric with another way to ask, such as one that remembers answers."""
        other = self.model_copy()
        other._engine, other._asked = engine, {}
        return other

    def score(self, observation: Observation) -> Score:
        return self.score_all([observation], lambda count: None)[0]

    def score_all(self, observations: Sequence[Observation], progress: Callable[[int], None]) -> list[Score]:
        asked = {place: self._questions(one) for place, one in enumerate(observations) if self._why_not(one) is None}
        progress(len(observations) - len(asked))
        self._ask(asked, progress)
        return [self._score(observation) for observation in observations]

    def details(self, observations: Sequence[Observation], scores: Sequence[Score]) -> Json | None:
        """{"kind": "judge", "wins", "ties", "losses", "consistent", "first_preferred", "people"}: shares of the rows
        on which both orders agree and, of all verdicts, of those for the answer that stood first."""
        given = [score.value for score in scores if score.value is not None]
        pairs = [pair for one in observations if (pair := self._verdicts(one)) is not None]
        if not given:
            return None
        counts = Counter(given)
        out: Json = {"kind": "judge", "wins": counts[1.0], "ties": counts[0.5], "losses": counts[0.0]}
        if pairs:
            out["consistent"] = sum(one == _OTHER[two] for one, two in pairs) / len(pairs)
            decided = [verdict for pair in pairs for verdict in pair if verdict != "tie"]
            out["first_preferred"] = decided.count("first") / len(decided) if decided else None
        return {**out, "people": self._people(observations, scores)} if self.people is not None else out

    def _score(self, observation: Observation) -> Score:
        why = self._why_not(observation)
        if why is not None:
            return Score(None, why)
        if self._other(observation).strip() == (observation.text or "").strip():
            return Score(0.5)
        refused = next((answer.refused for answer in self._answers(observation) if answer.refused is not None), None)
        if refused is not None:
            return Score(None, f"the judge gave no answer: {refused}")
        verdicts = self._verdicts(observation)
        if verdicts is None:
            return Score(None, f"the judge's answer names no verdict ({_WANTED[self.form]})")
        first, second = verdicts
        return Score(_WORTH[first] if first == _OTHER[second] else 0.5)

    def _why_not(self, observation: Observation) -> str | None:
        if observation.text is None:
            return "no answer"
        if (observation.reference if self.against == "reference" else observation.rival) is None:
            return "no reference text" if self.against == "reference" else "no answer of another model to compare with"
        return None if self.model or self._engine is not None else "no judge: set judge.model (and judge.base_url)"

    def _other(self, observation: Observation) -> str:
        return (observation.reference if self.against == "reference" else observation.rival) or ""

    def _questions(self, observation: Observation) -> tuple[str, ...]:
        """The question with the answer first and with the answer second; none where both answers are the same."""
        text, other = observation.text or "", self._other(observation)
        if text.strip() == other.strip():
            return ()
        language = self.language
        if language == "auto":
            language = judging.language_of(observation.prompt, text, other)
        return tuple(
            judging.question(observation.prompt, *answers, language, self.criteria, self.form == "json")
            for answers in ((text, other), (other, text))
        )

    def _ask(self, asked: dict[int, tuple[str, ...]], progress: Callable[[int], None]) -> None:
        """Fills the memory; of two models that are judged against one another, the second finds all answers there."""
        wanted = list(dict.fromkeys(question for questions in asked.values() for question in questions))
        new = [question for question in wanted if _key(question) not in self._asked]
        share = len(asked) / len(new) if new else 0.0
        counted = 0

        def done(place: int, completion: Completion) -> None:
            nonlocal counted
            counted += 1
            progress(round(counted * share) - round((counted - 1) * share))

        if not new:
            progress(len(asked))
            return
        requests = [Request((Message("user", question),)) for question in new]
        found = self._made().answer(requests, Decoding(self.max_new_tokens), done)
        self._asked.update(zip(map(_key, new), found, strict=True))

    def _made(self) -> Engine:
        if self._engine is not None:
            return self._engine
        from tuneloop.generate.openai_engine import OpenAIEngine

        made: Any = OpenAIEngine(
            self.base_url, self.model, self.key_env, concurrency=self.concurrency, timeout=self.timeout,
            response_format=judging.RESPONSE_FORMAT if self.form == "json" else None,
        )  # fmt: skip
        self._engine = made
        return made

    def _answers(self, observation: Observation) -> list[Completion]:
        return [self._asked[key] for key in map(_key, self._questions(observation)) if key in self._asked]

    def _verdicts(self, observation: Observation) -> tuple[str, str] | None:
        """Both orders' verdicts, the answer standing first and then second."""
        answers = [] if self._why_not(observation) else self._answers(observation)
        read = [judging.verdict_of(answer.text) for answer in answers if answer.refused is None]
        return (read[0], read[1]) if len(read) == 2 and read[0] is not None and read[1] is not None else None

    def _people(self, observations: Sequence[Observation], scores: Sequence[Score]) -> Json:
        """{"n", "agreement", "low", "high", "kappa", "kappa_low", "kappa_high"}, or {"n": 0, "why"}."""
        from tuneloop.stats.agreement import agreement

        given = [
            (PEOPLE.get(str(one.meta.get(self.people or "")).strip().casefold()), score.value)
            for one, score in zip(observations, scores, strict=True)
        ]
        both = [(person, judged) for person, judged in given if person is not None and judged is not None]
        if not both:
            return {"n": 0, "why": f"no row has a verdict of people in the column {self.people} and one of the judge"}
        found = agreement([person for person, _ in both], [judged for _, judged in both])
        ends = found.kappa_interval or (None, None)
        return {"n": found.n, "agreement": found.share, "low": found.interval.low, "high": found.interval.high,
                "kappa": found.kappa, "kappa_low": ends[0], "kappa_high": ends[1]}  # fmt: skip


def _key(question: str) -> str:
    return digest.of_texts([question])
