"""What was tried against the service by hand, kept as tests: bytes on the wire that no honest client sends."""

from __future__ import annotations

import logging
import re
import resource
import socket
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pytest

from tuneloop.serve import server
from tuneloop.serve.limits import Pace
from tuneloop.serve.sessions import cookies_of

HEAD = b"Host: localhost\r\nContent-Type: application/json\r\n"
BODY = b'{"model": "toy", "messages": [{"role": "user", "content": "hello"}]}'
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
CODING = b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def said(one: Any, data: bytes) -> bytes:
    """All that is answered to some bytes until the server closes, or says nothing more."""
    host, port = one.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 20) as connection:
        connection.sendall(data)
        connection.settimeout(1)
        found = b""
        try:
            while more := connection.recv(1 << 16):
                found += more
        except TimeoutError:
            pass
        return found


def states(answer: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d+) ", answer)]


@pytest.mark.parametrize(
    "lengths",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        b"transfer-encoding: Chunked\r\ncontent-length: 99\r\n",
    ],
)
def test_a_request_with_two_lengths_is_refused_and_its_connection_closed(served: Any, lengths: bytes) -> None:
    """A proxy that believes the other length takes the rest for another client's request."""
    one = served()
    answer = said(one, b"POST /v1/chat/completions HTTP/1.1\r\n" + HEAD + lengths + b"\r\n" + CHUNKED + NEXT)
    assert states(answer) == [400] and b"connection: close" in answer.lower()
    assert one.engine.asked == []


@pytest.mark.parametrize(
    "lengths",
    [
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Content-Length: +68\r\n",
        b"Content-Length: 6_8\r\n",
        b"Content-Length: " + b"9" * 5_000 + b"\r\n",
        b"Content-Length: 68\r\nContent-Length: 67\r\n",
        b"Host: localhost\r\nContent-Length: 68\r\n",
    ],
)
def test_odd_lengths_and_two_hosts_are_no_requests(served: Any, lengths: bytes) -> None:
    one = served()
    answer = said(one, b"POST /v1/chat/completions HTTP/1.1\r\n" + HEAD + lengths + b"\r\n" + BODY + NEXT)
    assert states(answer) and all(state in (400, 501) for state in states(answer))
    assert one.engine.asked == []


def chunked(one: Any, pieces: Iterable[bytes], key: bytes = b"") -> tuple[list[int], bool]:
    """The states of what is answered to a chunked body, and whether the server then cut the connection."""
    host, port = one.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 20) as connection:
        found, cut = b"", False
        try:
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n" + HEAD + key + CODING)
            for batch in batched(pieces):
                connection.sendall(b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in batch))
            connection.sendall(b"0\r\n\r\n")
            connection.settimeout(2)
            while more := connection.recv(1 << 16):
                found += more
            cut = True
        except TimeoutError:
            pass
        except ConnectionError:
            cut = True
    return states(found), cut


def batched(pieces: Iterable[bytes]) -> Iterator[tuple[bytes, ...]]:
    rest = iter(pieces)
    while batch := tuple(islice(rest, 1_000)):
        yield batch


def test_a_body_in_a_million_pieces_is_cut_off(served: Any) -> None:
    """Four connections that sent chunks of a byte, without a key, kept everybody else waiting for minutes."""
    one = served(open_to_all=False)
    assert chunked(one, (b"x" for _ in range(1_000_000)))[1]
    with_key = b"Authorization: %b\r\n" % one.key("chat")["Authorization"].encode()
    assert chunked(one, (b" " for _ in range(1_000_000)), with_key)[1]
    assert one.engine.asked == []


def test_honest_pieces_are_taken(served: Any) -> None:
    one = served(lambda ask: "yes")  # an echo of so much, at once, is given up where the loop is slower to take it
    assert chunked(one, (BODY[place : place + 1] for place in range(len(BODY)))) == ([200], False)
    large = BODY.replace(b"hello", b"hello " * 100_000)
    assert chunked(one, (large[place : place + 300] for place in range(0, len(large), 300))) == ([200], False)


def test_there_are_files_for_all_connections_and_the_database(served: Any) -> None:
    """Systems allow 1,024 open files at first, which 1,024 silent connections would take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        one = served(limits={"connections": 700})
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (700 + server.OWN_FILES, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert states(said(one, NEXT)) == [200]


def test_where_there_are_fewer_files_it_is_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 500))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: given.append(limits))
    server.make_room(1_024)
    assert given == [(500, 500)] and "allows 500: set it to 244" in caplog.text
    server.make_room(50)
    assert given[1:] == [(306, 500)]


@pytest.mark.parametrize(
    "host", ["l\xf6calhost", "localhost\xa0", "127\xb70\xb70\xb71", "0x7f.1", "2130706433", "0177.1"]
)
def test_hosts_that_only_look_like_ours_are_refused(served: Any, host: str) -> None:
    answer = said(served(), b"GET /health HTTP/1.1\r\nHost: %b\r\n\r\n" % host.encode("latin-1"))
    assert states(answer) == [421]


def test_what_a_client_invents_does_not_stand_in_the_log(served: Any, caplog: pytest.LogCaptureFixture) -> None:
    one = served()
    with caplog.at_level(logging.INFO, "tuneloop.serve"):
        for line in (b"EVIL" * 5_000 + b" /health", b"GET /v1/models/a%0d%0aEVIL", b"GET /EVIL", b"EVIL /v1/models"):
            assert states(said(one, line + b" HTTP/1.1\r\nHost: localhost\r\nX: EVIL\r\nConnection: close\r\n\r\n"))
    logged = [record.getMessage() for record in caplog.records if record.name == "tuneloop.serve"]
    assert len([line for line in logged if "key=" in line]) == 4
    assert "EVIL" not in "".join(logged) and max(map(len, logged)) < 200


def test_text_of_an_answer_begins_no_event_of_its_own(served: Any) -> None:
    """A stream's events end with an empty line, which may stand in an answer."""
    text = "a\n\ndata: [DONE]\r\n\r\nevent: x\rdata: {}\u2028\u0085 end"
    one = served(lambda ask: text)
    body = BODY.replace(b"{", b'{"stream": true, ', 1)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n" % len(body)
    answer = said(one, head + HEAD + b"\r\n" + body)
    assert answer.count(b"data: [DONE]\n\n") == 1 and b"\nevent:" not in answer and b"\rdata" not in answer


def test_cookies_are_read_without_taking_quotes_apart() -> None:
    """One of 60 kB of quoted backslashes held the whole service up for 8 s: http.cookies needs their square."""
    assert cookies_of("a=b; tuneloop=x.y.s1-z ; tuneloop-theme=dark;tuneloop=second;;=;") == {
        "tuneloop": "x.y.s1-z", "tuneloop-theme": "dark",
    }  # fmt: skip
    quoted = '"' + '\\"' * 1_000_000 + '"'  # the square of this would never end
    assert cookies_of(f"tuneloop={quoted}") == {"tuneloop": quoted}
    assert cookies_of("") == cookies_of(";" * 100_000) == {}


def test_messages_are_held_back_at_their_pace() -> None:
    now = 0.0
    pace = Pace(64, 2, lambda: now)
    assert [pace.delay() for _ in range(128)] == [0.0] * 128
    assert (pace.delay(), pace.delay(15)) == (1 / 64, 16 / 64)
    now = 1.0
    assert pace.delay() == 0.0
    now = 1_024.0
    assert sum(pace.delay() == 0.0 for _ in range(300)) == 128, "a pause saves up no more"
