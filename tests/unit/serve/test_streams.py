"""Streams and their ends: clients that leave, that do not read, answers that take too long, a service that stops."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import SECONDS, tune_run, until

from tuneloop.core.conversation import Message
from tuneloop.core.errors import ModelError
from tuneloop.generate.engine import Decoding, Request
from tuneloop.generate.live import Ask, Piece
from tuneloop.serve import answering
from tuneloop.serve.adapters import Roster
from tuneloop.serve.auth import LOCAL
from tuneloop.serve.mailbox import Mailbox
from tuneloop.serve.server import Server

BODY: dict[str, Any] = {"model": "toy", "messages": [{"role": "user", "content": "hello there"}]}


def raw(url: str, body: Any, *, path: str = "/v1/chat/completions", receive: int | None = None) -> socket.socket:
    """A request on a socket of its own; the answer is not read."""
    host, port = url.removeprefix("http://").split(":")
    data = json.dumps(body).encode()
    made = socket.socket()
    if receive is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    made.settimeout(SECONDS)
    made.connect((host, int(port)))
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    made.sendall(head.encode() + data)
    return made


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_given_up_when_its_client_leaves(served: Any, stream: bool) -> None:
    one = served(lambda ask: "word " * 50)
    one.engine.pause()
    connection = raw(one.url, {**BODY, "stream": stream})
    until(lambda: one.engine.asked)
    connection.close()
    until(lambda: one.engine.cancelled)
    until(lambda: not one.service.under_way)


def test_a_stream_that_is_left_in_the_middle_frees_its_place_and_is_kept(served: Any) -> None:
    one = served(lambda ask: "word " * 50)
    one.engine.pause(after=20)  # more than nobody takes on a busy machine would be given up by the service
    with (
        httpx.Client(base_url=one.url) as client,
        client.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as answer,
    ):
        signed = answer.headers["X-Answer-Id"]
        assert next(answer.iter_lines()).startswith("data: ")
    until(lambda: one.engine.cancelled and not one.service.under_way)
    id = one.service.store.check(signed)
    kept = until(lambda: one.service.store.answer(id))
    assert kept.finish == "cancelled"


def test_a_client_that_does_not_read_is_cut_off_and_blocks_nobody(served: Any) -> None:
    one = served(
        lambda ask: "word " * (5 if "there" in ask.request.messages[0].content else 400_000),
        limits={"max_tokens": 1_000_000, "write_timeout": 0.5},
    )
    deaf = raw(one.url, {**BODY, "stream": True, "messages": [{"role": "user", "content": "much"}]}, receive=4096)
    until(lambda: one.engine.asked)
    answer = httpx.post(f"{one.url}/v1/chat/completions", json=BODY, timeout=SECONDS)
    assert answer.status_code == 200
    until(lambda: one.engine.cancelled)
    until(lambda: not one.service.under_way)
    deaf.close()


def test_pieces_that_nobody_takes_are_bounded() -> None:
    async def fill() -> tuple[bool, bool, int]:
        box = Mailbox(3)
        for _ in range(3):
            box.put(0, Piece("x"))
        before = box.full
        box.put(0, Piece("x"))
        return before, box.full, len(await box.take(1))

    assert asyncio.run(fill()) == (False, True, 4)


def test_an_answer_that_takes_too_long_is_504_or_an_error_event(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("streaming", "chat"):  # the stream begins before anything has come
        monkeypatch.setattr(f"tuneloop.serve.{room}.PATIENCE", 0.02)
    one = served(limits={"timeout": 1.0})
    one.engine.pause()
    whole = httpx.post(f"{one.url}/v1/chat/completions", json=BODY, timeout=SECONDS)
    assert (whole.status_code, whole.json()["error"]["code"]) == (504, "timeout")
    streamed = httpx.post(f"{one.url}/v1/chat/completions", json={**BODY, "stream": True}, timeout=SECONDS)
    assert streamed.status_code == 200
    assert ": still working" in streamed.text
    last = streamed.text.strip().splitlines()[-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "timeout"
    assert "[DONE]" not in streamed.text


def test_the_whole_answer_equals_the_streamed_one_with_several_choices(opened: Any) -> None:
    one = opened(lambda ask: f"choice {ask.request.seed} of many words, 还有中文")
    fields = {"n": 3, "temperature": 1.0, "seed": 5}
    whole = [choice["message"]["content"] for choice in one.ask(**fields).json()["choices"]]
    texts = [""] * 3
    for line in one.ask(**fields, stream=True).text.splitlines():
        if line.startswith("data: {"):
            for choice in json.loads(line[6:])["choices"]:
                texts[choice["index"]] += choice["delta"].get("content") or ""
    assert texts == whole
    assert len(set(whole)) == 3


def test_a_dead_engine_is_unhealthy_and_tells_clients_no_secrets(opened: Any) -> None:
    def die(_: Ask) -> str:
        raise RuntimeError("CUDA at /secret/path")

    one = opened(die)
    answer = one.ask()
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "engine_error")
    assert "secret" not in answer.text
    assert one.client.get("/health").status_code == one.client.get("/ready").status_code == 503
    assert one.ask().status_code == 503


class Endless:
    """Adapters are compared with full precision for ever."""

    def __init__(self) -> None:
        self.begun, self.stopped = threading.Event(), threading.Event()

    def pass_adapter(self, adapter: Path) -> None:
        self.begun.set()
        self.stopped.wait()
        raise ModelError("broke off")

    def stop(self) -> None:
        self.stopped.set()


def test_a_comparison_of_an_adapter_holds_no_shutdown_up(served: Any, tmp_path: Path) -> None:
    """Before, the process lived on until it was over, minutes at times."""
    one, gate = served(open_to_all=False), Endless()
    one.service.roster = Roster(one.engine, "toy", gate=gate)
    tune_run(tmp_path / "runs", "20261122-0000-tune-a-1234")
    asked = {"url": f"{one.url}/admin/adapters", "headers": one.key("admin"), "timeout": SECONDS}
    asked["json"] = {"name": "a", "run": "20261122-0000-tune-a-1234"}
    said: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: said.append(httpx.post(**asked)))
    asking.start()
    try:
        assert gate.begun.wait(SECONDS)
        one.server.handle_exit(signal.SIGTERM, None)
        assert gate.stopped.wait(SECONDS)
    finally:
        gate.stop()
        asking.join()
    assert (said[0].status_code, said[0].headers["Retry-After"]) == (503, "5")


def test_while_draining_no_adapter_is_taken(opened: Any) -> None:
    one = opened(open_to_all=False)
    key = one.key("admin")
    one.service.draining = True
    said = one.client.post("/admin/adapters", headers=key, json={"name": "a", "run": "b"})
    assert (said.status_code, said.json()["error"]["code"]) == (503, "shutting_down")


def test_while_draining_nothing_new_begins_and_what_is_under_way_ends(served: Any) -> None:
    one = served()
    one.engine.pause()
    found: list[Any] = []
    asking = threading.Thread(
        target=lambda: found.append(httpx.post(f"{one.url}/v1/chat/completions", json=BODY, timeout=SECONDS))
    )
    asking.start()
    until(lambda: one.service.under_way)
    server = Server(one.service)
    server.handle_exit(signal.SIGTERM, None)
    assert httpx.get(f"{one.url}/ready").json() == {"status": "draining"}
    assert httpx.get(f"{one.url}/health").status_code == 200
    refused = httpx.post(f"{one.url}/v1/chat/completions", json=BODY)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
    assert not server.should_exit
    one.engine.resume()
    asking.join()
    assert found[0].status_code == 200
    server.handle_exit(signal.SIGTERM, None)  # the second signal does not wait
    assert server.should_exit


def test_who_does_not_read_fast_enough_is_told_so(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was told that the service shuts down."""
    monkeypatch.setattr(answering, "MOST_WAITING", 3)
    one = opened()
    ask = Ask(Request((Message("user", "word " * 50),)), Decoding(200), "toy")

    async def slowly() -> list[Any]:
        made = answering.begin(one.service, LOCAL, "toy", None, [ask])
        until(lambda: one.engine.cancelled)  # and this loop takes nothing
        found = [made.refusal(piece) async for taken in made.pieces(SECONDS) for _, piece in taken]
        made.end()
        return found

    *given, last = asyncio.run(slowly())
    assert given and given == [None] * len(given) and (last.status_code, last.code) == (408, "slow")
