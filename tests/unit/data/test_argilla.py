"""Argilla's records, nested and flat."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.data.annotation_exports import RECORD, WORDS, argilla, chosen_format, flat, read, reason


@pytest.mark.parametrize("shape", [dict, flat])
def test_argilla_records_nested_and_flat(shape: Any) -> None:
    record = shape(RECORD)
    assert chosen_format([record]) == ("argilla", 1.0)
    found = read("argilla", [record])
    assert found.turns == [[("user", "q"), ("assistant", "r")]]
    meta = found.rows[0].meta
    assert (meta["label"], meta["score"], meta["site"], meta["status"]) == ("good", 4.5, "x", "completed")
    assert [(one["rater"], one["item"], one["values"]) for one in meta["annotations"]] == [
        ("u1", "r1", {"quality": "good", "score": 4, "issues": ["a", "b"]}),
        ("u2", "r1", {"quality": "good", "score": 5, "issues": ["b"]}),
        ("u3", "r1", {"quality": "bad"}),
    ]
    assert not any("suggestion" in key for key in meta)


def test_argilla_drafts_and_discarded_responses_are_missing() -> None:
    for status in ("draft", "discarded"):
        assert "not annotated" in reason(read("argilla", [flat(RECORD, status)]))
    found = read("argilla", [flat(RECORD, "discarded")], unannotated="keep")
    assert found.annotations[0][0] == {"rater": "u1", "item": "r1", "values": {}, "cancelled": True}
    pending = {**RECORD, "status": "pending"}
    assert any("may be drafts" in note for note in read("argilla", [pending]).rows[0].notes)
    none = argilla(1, {"text": "t"}, {"quality": {"u1": None, "u2": "a"}})
    assert read("argilla", [none]).annotations[0][0]["values"] == {}


def test_argilla_answers_texts_spans_and_chats() -> None:
    written = argilla(1, {"prompt": "q", "response": "r"}, {"correction": {"u1": "better"}, "quality": {"u1": "ok"}})
    assert read("argilla", [written]).answers == ["better"]
    spans = argilla(1, {"text": "IBM und Bob"}, {"ner": {"u1": [{"start": 8, "end": 11, "label": "PER", "score": 1}]}})
    assert read("argilla", [spans]).answers == ['[{"text":"Bob","label":"PER"}]']
    chat = argilla(1, {"chat": [{"role": "user", "content": "q"}]}, {"quality": {"u1": "ok"}})
    assert read("argilla", [chat]).turns == [[("user", "q"), ("assistant", "ok")]]


SOME = {"score": st.integers(0, 9), "issues": st.lists(WORDS, min_size=2, max_size=3, unique=True)}
USERS = st.dictionaries(
    st.sampled_from(["u1", "u2", "u3"]), st.fixed_dictionaries({"quality": WORDS}, optional=SOME), min_size=1
)


@settings(max_examples=40)
@given(st.lists(USERS, min_size=1, max_size=4))
def test_argilla_gives_back_what_was_answered(items: list[dict[str, dict[str, Any]]]) -> None:
    records = []
    for number, by_user in enumerate(items):
        questions = dict.fromkeys(name for values in by_user.values() for name in values)
        by = {name: {user: values[name] for user, values in by_user.items() if name in values} for name in questions}
        records.append(argilla(number, {"prompt": "q", "response": "r"}, by))
    for shape in (dict, flat):
        found = read("argilla", [shape(record) for record in records], response="response")
        assert [{one["rater"]: one["values"] for one in row} for row in found.annotations] == items


def test_many_different_labels_are_no_answers() -> None:
    """Argilla's records do not say whether a string was chosen or written."""
    fields = {"prompt": "q", "response": "r"}
    topics = [argilla(n, fields, {"topic": {"u1": f"topic {n}"}}) for n in range(12)]
    assert set(read("argilla", topics).answers) == {"r"}
    texts = [argilla(n, fields, {"v2": {"u1": f"{n} is the number that was asked for"}}) for n in range(12)]
    assert read("argilla", texts).answers[3] == "3 is the number that was asked for"
    long = [argilla(n, fields, {"v2": {"u1": "yes" if n else "line\nline"}}) for n in range(2)]
    assert read("argilla", long).answers == ["line\nline", "yes"]
