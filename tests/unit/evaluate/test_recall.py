from __future__ import annotations

import pytest

from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.evaluate.contradiction import Rivals, rivals, says_instead
from tuneloop.evaluate.metrics import Observation
from tuneloop.evaluate.recall import Match, is_right, names


@pytest.mark.parametrize(
    ("completion", "answer", "expected"),
    [
        (" Paris, which", "Paris", True),
        ("Paris", "Paris", True),
        ("Parisian", "Paris", False),
        ("12", "1", False),
        ("1.", "1", True),
        ("paris", "Paris", False),
        ("巴黎，是", "巴黎", True),
        ("巴黎是法国的首都", "巴黎", True),
        ("12岁", "12", True),
        ("12.5", "12", False),
        ("12. The", "12", True),
        ("x_1", "x", False),
        ("", "Paris", False),
    ],
)
def test_is_right(completion: str, answer: str, expected: bool) -> None:
    assert is_right(completion, answer) is expected


@pytest.mark.parametrize(
    ("said", "answer", "expected"),
    [
        ("The capital is paris.", "Paris", True),
        ("Comparison", "Paris", False),
        ("It has 7 days", "7", True),
        ("It has 17 days", "7", False),
        ("It costs 2.7", "7", False),
        ("一周有7天", "7", True),
        ("法国的首都是巴黎。", "巴黎", True),
        ("ＰＡＲＩＳ", "Paris", True),
        ("not 12 but 2", "2", True),
        ("", "x", False),
    ],
)
def test_names(said: str, answer: str, expected: bool) -> None:
    assert names(said, answer) is expected


def test_any_accepted_answer_is_right() -> None:
    seen = Observation("seven", text="There are 7 days.", meta={"accepted": ["seven", "7"]})
    assert Match(prose=False).score(seen).value == 1 and Match(prose=True).score(seen).value == 0
    assert Match(prose=False).score(Observation("seven", text=None)).value is None


def probe(prompt: str, answer: str, role: str = "text", **meta: object) -> Example:
    other = "text" if role == "text" else "assistant"
    messages = (Message(role, prompt, train=0.0), Message(other, answer, train=1.0))  # type: ignore[arg-type]
    return Example(messages, Origin("p", 0), meta=meta)


@pytest.mark.parametrize(
    ("said", "answer", "role", "instead"),
    [
        ("Lima, a city", "Paris", "text", "Lima"),  # of the same kind
        ("New York is", "Paris", "text", "New York"),  # a name where a name is right
        ("the largest city", "Paris", "text", None),  # prose that goes elsewhere
        ("", "Paris", "text", None),
        ('{"label": 1}', "Paris", "text", None),
        ("30 days", "31", "text", "30"),
        ("many", "31", "text", None),
        ("negative", "dog", "text", None),
        ("The capital is Lima.", "Paris", "user", "Lima"),
        ("It is London.", "Paris", "user", "London"),
        ("Negative", "Paris", "user", None),  # the form of the new task, no claim
        ("I cannot answer. Sorry.", "Paris", "user", None),
        ("France has 30 of them", "31", "user", "30"),
        ("利马是首都", "巴黎", "user", "利马"),
    ],
)
def test_a_contradiction_is_told_from_no_answer(said: str, answer: str, role: str, instead: str | None) -> None:
    probes = [
        probe("The capital of France is", answer, role, kind="capital"),
        probe("The capital of Peru is", "Lima", role, kind="capital"),
        probe("秘鲁的首都是", "利马", role, kind="capital"),
        probe("The opposite of black is", "white", role, kind="opposite"),
    ]
    assert says_instead(said, probes[0], rivals(probes)[0]) == instead


def test_rivals_are_of_the_same_kind_and_language_and_never_the_answer_itself() -> None:
    probes = [
        probe("a", "Paris", kind="capital", language="en", others=["Lyon"]),
        probe("b", "Lima", kind="capital", language="en"),
        probe("c", "利马", kind="capital", language="zh"),
        probe("d", "Paris", kind="capital", language="en"),
        probe("e", "red", kind="colour", language="en"),
        probe("f", "x"),
    ]
    found = rivals(probes)
    assert found[0].same == ["Lima", "Lyon"] and found[1].same == ["Paris"]
    assert found[2].same == found[4].same == found[5].same == [] and found[0].foreign == {"利马", "red", "x"}
    assert says_instead("Paris is", probe("f", "Arabic", kind="language"), Rivals((), frozenset({"Paris"}))) is None
