"""What operators see: figures, states, models, and a log line a request."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from serving import until

from tuneloop.core.errors import StoreError


def test_figures_count_requests_tokens_and_times(opened: Any) -> None:
    one = opened()
    one.ask()
    one.ask(model="none")
    watch = one.key("watch")
    answer = one.client.get("/metrics", headers=watch)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    for line in (
        'tuneloop_requests_total{route="/v1/chat/completions",status="200"} 1.0',
        'tuneloop_requests_total{route="/v1/chat/completions",status="404"} 1.0',
        'tuneloop_tokens_total{kind="completion",model="toy"} 5.0',
        'tuneloop_answers_total{finish="stop",model="toy"} 1.0',
        "tuneloop_running 0.0",
    ):
        assert line in answer.text


def test_what_clients_invent_makes_no_new_series(opened: Any) -> None:
    one = opened()
    for number in range(5):
        one.client.get(f"/invented/{number}")
        one.ask(model=f"invented-{number}")
    assert "invented" not in one.service.meters.text().decode()


def test_one_line_a_request_with_what_an_operator_needs(opened: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tuneloop.serve")
    one = opened()
    for stream in (False, True):
        caplog.clear()
        signed = one.ask(stream=stream).headers["X-Answer-Id"]
        (line,) = [record.getMessage() for record in caplog.records if record.name == "tuneloop.serve"]
        assert line.startswith("POST /v1/chat/completions 200 ")
        assert f"key=local model=toy finish=stop tokens=5 answers={one.service.store.check(signed)}" in line


def test_models_that_are_not_there_are_404(opened: Any) -> None:
    one = opened()
    assert one.client.get("/v1/models/none/such").status_code == 404
    assert one.client.get("/v1/models/toy").json()["object"] == "model"


def test_answers_that_cannot_be_recorded_stop_the_service_not_its_loop(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = opened()

    def refuse(_: Any) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(one.service.store, "record", refuse)
    assert one.ask().status_code == 200
    until(lambda: "tuneloop_unrecorded_total 1.0" in one.service.meters.text().decode())
    monkeypatch.setattr(type(one.service.store), "refused", 7)
    assert "tuneloop_unrecorded_total 8.0" in one.service.meters.text().decode(), "and those that the database refused"
    monkeypatch.setattr("tuneloop.serve.service.MOST_UNWRITTEN", -1)
    answer = one.ask()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")


def test_a_store_that_does_not_answer_is_503_and_its_words_stay_here(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = opened()
    signed = one.ask().headers["X-Answer-Id"]

    def fail(*_: Any) -> None:
        raise StoreError("disk of /secret is full")

    monkeypatch.setattr(one.service.store, "feedback", fail)
    monkeypatch.setattr(one.service.store.keys, "verify", fail)
    vote = one.client.post("/v1/feedback", json={"answer": signed, "thumb": 1})
    keyed = one.client.get("/v1/models", headers={"Authorization": "Bearer tl-x"})
    for answer in (vote, keyed):
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
        assert "secret" not in answer.text


def test_a_keys_name_can_be_shown(opened: Any) -> None:
    """Found by schemathesis: the store's refusal was a fault."""
    one = opened()
    answer = one.client.post("/admin/keys", json={"name": "\x08", "roles": ["chat"]}, headers=one.key("admin"))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "name")


def test_no_telemetry_leaves_whatever_the_environment_says(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """FastAPI would send spans with texts of errors where the environment names a collector."""
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    app = opened().client.app
    assert not any(app._telemetry[kind] for kind in ("tracing", "metrics", "logs", "auto_configure"))
