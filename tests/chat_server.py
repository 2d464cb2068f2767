"""A server on this machine that speaks OpenAI's protocol; a test says what it answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

Reply = tuple[int, Any] | tuple[int, Any, dict[str, str]]
"""Status, body (JSON, or text as it is) and headers. Status 0 breaks the connection."""
Answer = Callable[[str, dict[str, Any]], Reply]


def said(text: str | None, finish: str = "stop", **message: Any) -> Reply:
    """A chat completion."""
    return 200, {"choices": [{"message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}]}


class ChatServer(ThreadingHTTPServer):
    """Answers POSTs by `answer(path, body)` and /v1/models by `models`; keeps what it was asked."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answer: Answer, models: Reply) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.models = answer, models
        self.asked: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.lock, self.at_once, self.most_at_once = Lock(), 0, 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that were told to give up hang up in the middle."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


@contextmanager
def chat_server(
    answer: Answer, models: Reply = (200, {"data": [{"id": "m", "root": "org/m"}]})
) -> Iterator[ChatServer]:
    """The server while the block runs."""
    with ChatServer(answer, models) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        assert isinstance(self.server, ChatServer)
        self._send(*self.server.models)

    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, ChatServer)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.asked.append((self.path, body, dict(self.headers)))
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            reply = server.answer(self.path, body)
        finally:
            with server.lock:
                server.at_once -= 1
        if reply[0] == 0:
            self.close_connection = True
            return
        self._send(*reply)

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
