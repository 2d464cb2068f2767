"""Votes: for answers of this service alone, one a user and answer, stored before they are acknowledged."""

from __future__ import annotations

import time
from typing import Any

import pytest


def voted(one: Any, signed: str, **fields: Any) -> Any:
    return one.client.post("/v1/feedback", json={"answer": signed, **fields})


def test_a_vote_is_stored_when_it_is_acknowledged(opened: Any) -> None:
    one = opened()
    signed = one.ask(user="ann").json()["choices"][0]["answer_id"]
    fields = {"thumb": -1, "stars": 2, "corrected": "better", "tags": ["wrong", "急"], "comment": "no", "user": "ann"}
    answer = voted(one, signed, **fields)
    assert answer.status_code == 200
    (vote,) = one.service.store.votes(answer.json()["answer"])
    assert (vote.thumb, vote.stars, vote.corrected, vote.tags, vote.comment) == (-1, 2, "better", ("wrong", "急"), "no")
    assert vote.user == one.service.store.answer(vote.answer).user  # the same name of the same key is the same user
    assert 'tuneloop_feedback_total{thumb="-1"} 1.0' in one.service.meters.text().decode()


def test_a_vote_just_after_the_answer_finds_it(opened: Any) -> None:
    """Answers are written a little later; a vote waits for its answer."""
    one = opened()
    for number in range(10):
        signed = one.ask(f"question {number}").headers["X-Answer-Id"]
        assert voted(one, signed, thumb=1).status_code == 200


def test_forged_and_unknown_ids_are_refused(opened: Any) -> None:
    one = opened()
    signed = one.ask().headers["X-Answer-Id"]
    id = one.service.store.check(signed)
    for forged in (id, signed[:-1], signed[:-1] + ("0" if signed[-1] != "0" else "1"), "x", "\x00"):
        assert voted(one, forged, thumb=1).json()["error"]["param"] == "answer"
    assert voted(one, one.service.store.sign("0" * 32), thumb=1).status_code == 404


def test_empty_and_impossible_votes_are_refused(opened: Any) -> None:
    one = opened()
    signed = one.ask().headers["X-Answer-Id"]
    for fields in ({}, {"thumb": 2}, {"stars": 0}, {"stars": 6}, {"tags": ["x"] * 17}, {"tags": [""]}, {"rating": 1}):
        assert voted(one, signed, **fields).status_code == 400, fields


def test_votes_are_limited_by_key(opened: Any) -> None:
    one = opened(limits={"feedback_per_minute": 2})
    signed = one.ask().headers["X-Answer-Id"]
    assert [voted(one, signed, thumb=1).status_code for _ in range(3)] == [200, 200, 429]


def test_a_vote_that_overtakes_its_answer_waits_for_it(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under load 5 of 772 votes came before our own thread had handed the answer on, and were refused with 404."""
    one = opened()
    record = one.service.store.record
    monkeypatch.setattr(one.service.store, "record", lambda answer: (time.sleep(0.3), record(answer)))
    signed = one.ask().headers["X-Answer-Id"]
    answer = one.client.post("/v1/feedback", json={"answer": signed, "thumb": 1})
    assert answer.status_code == 200, answer.text


def test_votes_are_refused_at_once_while_the_store_is_known_to_be_away(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = opened()
    signed = one.ask().headers["X-Answer-Id"]
    monkeypatch.setattr(one.service.store._writer, "_trouble", "gone")
    answer = one.client.post("/v1/feedback", json={"answer": signed, "thumb": 1})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
