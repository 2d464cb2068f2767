"""WebSockets of a site beside the API: they outlive the limits of requests, and have limits of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import SECONDS, listening, make, until
from websockets.exceptions import ConnectionClosed, InvalidMessage
from websockets.sync.client import connect

from tuneloop.serve import connections, front
from tuneloop.serve.auth import LOCAL


class Echo:
    """A site of one place, which says everything again, "more" without an end."""

    open = frozenset[tuple[str, str]]()
    home = login = "/"

    def __init__(self, service: Any) -> None:
        self.cookie = f"tuneloop={service.sessions.begin(LOCAL)[1]}"

    def place(self, kind: str, path: str) -> str | None:
        return path if path == "/echo" else None

    def running(self) -> Any:
        return nullcontext()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (said := await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "text": said["text"]})
            while said["text"] == "more":
                await send({"type": "websocket.send", "text": "x" * 100_000})


@contextmanager
def echoing(folder: Path, **limits: Any) -> Iterator[tuple[Any, Any]]:
    service, _ = make(folder, limits=limits)
    site = Echo(service)
    with listening(service, lambda _: site) as (url, server):
        headers = {"Cookie": site.cookie, "Origin": url}
        address = f"ws{url.removeprefix('http')}/echo"
        yield (
            lambda: connect(
                address, additional_headers=headers, max_size=None, compression=None, proxy=None, close_timeout=0.1
            ),
            server,
        )


def test_a_socket_outlives_the_time_in_which_a_request_must_arrive(tmp_path: Path) -> None:
    with echoing(tmp_path, read_timeout=1.0) as (open_one, _), open_one() as one:
        time.sleep(1.5)
        one.send("still here")
        assert one.recv(SECONDS) == "still here"


def test_who_does_not_read_is_cut_off(tmp_path: Path) -> None:
    with echoing(tmp_path, write_timeout=0.3) as (open_one, server), open_one() as one:
        one.send("more")
        until(lambda: server.server_state.connections == set())


def test_messages_have_a_largest_size(tmp_path: Path) -> None:
    with echoing(tmp_path, body_bytes=2048) as (open_one, _), open_one() as one:
        one.send("x" * 2049)
        with pytest.raises(ConnectionClosed) as caught:
            one.recv(SECONDS)
        assert caught.value.rcvd is not None and caught.value.rcvd.code == 1009


def test_sockets_count_as_connections(tmp_path: Path) -> None:
    refused = pytest.raises((ConnectionClosed, InvalidMessage, OSError))
    with echoing(tmp_path, connections=2) as (open_one, _), open_one(), open_one(), refused, open_one():
        pass


def test_messages_are_paced_by_number_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that says more than anybody types costs all others time."""
    costs: list[float] = []

    class Noted(front.Pace):
        def delay(self, cost: float = 1.0) -> float:
            costs.append(cost)
            return super().delay(cost)

    monkeypatch.setattr(front, "Pace", Noted)
    monkeypatch.setattr(front, "BURST", 0.0)
    with echoing(tmp_path) as (open_one, _), open_one() as one:
        for said in ("x" * 65_536, *map(str, range(20))):
            one.send(said)
        assert [one.recv(SECONDS) for _ in range(21)][1:] == [str(number) for number in range(20)]
    assert costs[0] == 5.0 and len(costs) == 21


@pytest.mark.parametrize("again", [b"\x89\x80\0\0\0\0", b"\x00\x81\0\0\0\0x"], ids=["pings", "pieces of a message"])
def test_small_frames_are_read_in_slices_and_others_come_between(
    tmp_path: Path, again: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sockets that sent pings as fast as they could left nobody else an answer."""
    sizes: list[int] = []
    read = connections.WebSocketsSansIOProtocol.data_received
    monkeypatch.setattr(
        connections.WebSocketsSansIOProtocol,
        "data_received",
        lambda self, data: (sizes.append(len(data)), read(self, data))[1],
    )
    with echoing(tmp_path) as (open_one, server), open_one() as one:
        stop = threading.Event()

        def flood() -> None:
            with suppress(OSError):
                one.socket.sendall(b"\x01\x81\0\0\0\0x" if again[0] == 0 else again)
                while not stop.is_set():
                    one.socket.sendall(again * 5_000)

        thread = threading.Thread(target=flood, daemon=True)
        thread.start()
        port = server.servers[0].sockets[0].getsockname()[1]
        assert [httpx.get(f"http://127.0.0.1:{port}/health", timeout=SECONDS).status_code for _ in range(5)] == [
            200
        ] * 5
        stop.set()
        one.socket.close()
    assert len(sizes) > 5 and max(sizes) <= connections.SLICE
