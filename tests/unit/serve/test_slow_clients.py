"""200 slow, broken and silent clients at once, and the service answers others meanwhile."""

from __future__ import annotations

import gc
import socket
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from serving import SECONDS, broken, until

from tuneloop.core.errors import ModelError
from tuneloop.generate.live import Ask
from tuneloop.serve.answering import Answering

BODY = {"model": "toy", "messages": [{"role": "user", "content": "hello there"}]}


def test_200_of_them_stop_nobody(served: Any) -> None:
    one = served(
        lambda ask: "word " * (20_000 if ask.request.messages[0].content == "much" else 2),
        places=64,
        limits={"read_timeout": 2.0, "write_timeout": 2.0, "max_tokens": 1_000_000},
    )
    host, port = one.url.removeprefix("http://").split(":")
    much = {**BODY, "messages": [{"role": "user", "content": "much"}], "stream": True}
    made = broken(host, much)
    with ExitStack() as stack:
        for _ in range(200):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((host, int(port)))
            connection.sendall(next(made))
        with httpx.Client(base_url=one.url, timeout=SECONDS) as client:
            for _ in range(5):
                assert client.get("/health").status_code == 200
                assert client.post("/v1/chat/completions", json=BODY).status_code == 200
        # all are cut off, although their side stays open
        until(lambda: not one.service.under_way and one.engine.now().running == 0)
        until(lambda: len(one.server.server_state.connections) <= 1)


def test_connections_are_bounded(served: Any) -> None:
    one = served(limits={"connections": 10})
    host, port = one.url.removeprefix("http://").split(":")
    with ExitStack() as stack:
        made = [stack.enter_context(socket.create_connection((host, int(port)), SECONDS)) for _ in range(30)]
        closed = 0
        for connection in made[10:]:
            try:
                closed += connection.recv(1) == b""
            except ConnectionResetError:
                closed += 1
        assert closed == 20
        made[0].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in made[0].recv(100)
    until(lambda: httpx.get(f"{one.url}/health").status_code == 200)


@pytest.mark.parametrize("size", [70_000, 1_000_000])
def test_the_head_of_a_request_is_bounded(served: Any, size: int) -> None:
    one = served()
    host, port = one.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), SECONDS) as connection:
        try:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * size)
            answer = connection.recv(1000)
        except (ConnectionResetError, BrokenPipeError):
            answer = b""
        assert b"200" not in answer[:20]
    assert httpx.get(f"{one.url}/health").status_code == 200


def test_a_body_that_trickles_in_is_given_up(served: Any) -> None:
    one = served(limits={"read_timeout": 0.5})
    host, port = one.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), SECONDS) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert b" 408 " in connection.recv(1000)


def test_a_second_head_that_trickles_in_is_cut_off(served: Any) -> None:
    one = served(limits={"read_timeout": 0.2})
    host, port = one.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), SECONDS) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in connection.recv(1000)
        connection.sendall(b"GET /health HT")
        until(lambda: not one.server.server_state.connections)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("text", ["hello", "refused"])
def test_what_was_asked_is_let_go_of_with_the_answer(served: Any, stream: bool, text: str) -> None:
    """Without waiting for the collector of cycles: refused prompts of a megabyte each filled gigabytes."""

    def answer(ask: Ask) -> str:
        if ask.request.messages[0].content == "refused":
            raise ModelError("too long")
        return "hello to you"

    one = served(answer)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            body = {**BODY, "messages": [{"role": "user", "content": text}], "stream": stream}
            said = httpx.post(f"{one.url}/v1/chat/completions", json=body)
            assert said.status_code == (400 if text == "refused" else 200)
        until(lambda: all(type(one) is not Answering for one in gc.get_objects()))
    finally:
        gc.enable()
