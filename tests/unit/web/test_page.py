"""The page by its socket, without a browser: asking, stopping, rating, correcting, both languages."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from page_tab import Tab
from serving import until


def test_question_answer_vote_and_correction(living: Any) -> None:
    living.answer = lambda ask: f"**No.** {len(ask.request.messages)}"
    with Tab(living.url) as tab:
        tab.ask("is it 真的 so?")
        tab.read_until("<strong>No.</strong> 1")
        tab.click("Good answer")
        tab.see("Good answer")
        until(lambda: tab.read() or any(kind == "notify" for kind, _ in tab.told))
        tab.click("Write a better answer")
        tab.type("The answer as it should be", "Yes. 是的")
        tab.type("What was wrong? (optional)", "it is")
        tab.click("Save")
        answer, votes = until(lambda: (found := living.stored("**No.** 1"))[1][1:] and found)
        assert answer.prompt[0].content == "is it 真的 so?"
        assert [(vote.thumb, vote.corrected, vote.comment) for vote in votes] == [
            (1, None, None),
            (1, "Yes. 是的", "it is"),
        ]
        tab.ask("and now?")
        tab.read_until("<strong>No.</strong> 3")


def test_it_streams_and_stops_and_goes_on_with_what_there_is(living: Any) -> None:
    living.answer = lambda ask: "first second third stopped-test"
    living.engine.pause(after=2)
    with Tab(living.url) as tab:
        tab.ask("count")
        tab.read_until("first second")
        tab.click("Stop")
        tab.read_until("stopped")
        answer, _ = living.stored("first second")
        assert answer.finish == "cancelled"
        tab.click("New chat")
        tab.read_until("What would you like to know?")
        assert "first" not in tab.shown()


def test_a_closed_tab_gives_its_answer_up(living: Any) -> None:
    living.engine.pause(after=1)
    before = len(living.engine.cancelled)
    with Tab(living.url) as tab:
        tab.ask("for nobody")
        tab.read_until("scripted")
    until(lambda: len(living.engine.cancelled) > before)
    until(lambda: not living.service.under_way)


def test_changing_the_language_while_an_answer_comes_loses_nothing(living: Any) -> None:
    living.answer = lambda ask: "half whole"
    living.engine.pause(after=1)
    with Tab(living.url) as tab:
        tab.ask("which?")
        tab.read_until("half")
        tab.click("中文")
        tab.see("请输入问题")
        tab.see("停止")
        living.engine.resume()
        tab.read_until("half whole")
        tab.see("回答得好")
        assert tab.find("Send") is None and tab.find("发送") is not None


def test_refusals_are_told_in_the_pages_language(living: Any) -> None:
    rate = living.service.requests
    with Tab(living.url, "zh") as tab:
        rate._buckets["local"] = (-100.0, rate._clock())
        tab.type("请输入问题", "你好")
        tab.click("发送")
        tab.read_until("当前请求过多，请稍后再试")
        assert tab.find("回答得好") is None
    rate._buckets.clear()


def test_values_that_no_browser_sends_are_refused(living: Any) -> None:
    with Tab(living.url) as tab:
        tab.say(tab.see("Longest answer, tokens"), "update:modelValue", "9999999")
        tab.ask("long?")
        tab.read_until("This cannot be answered")
    assert living.engine.asked == []


def test_a_key_that_may_not_rate_sees_no_thumbs_and_can_log_out(living: Any) -> None:
    living.service.doorkeeper.open_to_all = False
    with Tab(living.url, client=living.login("chat")) as tab:
        tab.ask("who am I?")
        tab.see("Copy")
        assert tab.find("Good answer") is None and tab.find("Log out") is not None


def test_the_log_tells_no_texts_of_the_page(living: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Tab(living.url) as tab:
        tab.say(tab.see("Ask something"), "update:value", {"SECRET": 1})
        tab.click("Send")
        tab.socket.send('42["log", {"client_id": "x", "level": "error", "message": "SECRET"}]')
        tab.ask("my SECRET question")
        tab.read_until("scripted says")
    until(lambda: "page answer" in caplog.text)
    told = [record.getMessage() for record in caplog.records if not record.name.startswith(("http", "websockets"))]
    assert "SECRET" not in "\n".join(told)
