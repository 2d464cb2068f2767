"""TLS of the service's own: real handshakes, whole, broken and never ended."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import SECONDS, listening, make, until
from test_sockets import Echo
from websockets.sync.client import connect

from tuneloop.core.errors import RecipeError
from tuneloop.serve import server
from tuneloop.serve.config import ServeConfig

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = {"model": "toy", "messages": [{"role": "user", "content": "hello there"}]}


def certificate(folder: Path, *more: str) -> dict[str, str]:
    """A certificate of localhost and its key, as the branch `tls` names them."""
    made = {"certificate": str(folder / "certificate.pem"), "key": str(folder / "key.pem")}
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", *(more or ["-nodes"])]
    out = ["-keyout", made["key"], "-out", made["certificate"]]
    subprocess.run(["openssl", "req", "-x509", *new, *names, *out], check=True, capture_output=True)
    return made


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return certificate(tmp_path_factory.mktemp("tls"))


@contextmanager
def encrypted(folder: Path, tls: dict[str, str], **limits: Any) -> Iterator[tuple[Any, Any, ssl.SSLContext]]:
    """(address, server, what a client trusts)"""
    service, _ = make(folder, tls=tls, limits=limits)
    with listening(service, Echo) as (_, running):
        yield (
            running.servers[0].sockets[0].getsockname(),
            running,
            ssl.create_default_context(cafile=tls["certificate"]),
        )


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(SECONDS)
    try:
        return connection.recv(1000) == b""
    except ConnectionResetError:
        return True


def test_answers_streams_and_sockets_are_encrypted(tmp_path: Path, tls: dict[str, str]) -> None:
    with encrypted(tmp_path, tls) as ((host, port), running, trusted):
        with httpx.Client(base_url=f"https://{host}:{port}", verify=trusted, timeout=SECONDS) as client:
            for _ in range(3):  # on one connection
                assert client.get("/health").json() == {"status": "ok"}
            assert client.post("/v1/chat/completions", json=BODY).status_code == 200
            said = client.post("/v1/chat/completions", json={**BODY, "stream": True}).text
            assert said.endswith("data: [DONE]\n\n")
            large = {**BODY, "messages": [{"role": "user", "content": "x" * 900_000}]}
            assert "x" * 900_000 in client.post("/v1/chat/completions", json=large).text
            assert len(running.server_state.connections) == 1
        headers = {"Cookie": Echo(running._service).cookie, "Origin": f"https://{host}:{port}"}
        with connect(f"wss://{host}:{port}/echo", ssl=trusted, additional_headers=headers, proxy=None) as one:
            one.send("hello")
            assert one.recv(SECONDS) == "hello"
        until(lambda: not running.server_state.connections)


def test_handshakes_that_never_end_are_counted_and_end(tmp_path: Path, tls: dict[str, str]) -> None:
    """Before, any number of them could stand for a minute each, beside all limits."""
    with encrypted(tmp_path, tls, connections=6, read_timeout=1.0) as (address, running, trusted), ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(address)) for _ in range(6)]
        for number, connection in enumerate(silent):
            connection.sendall([b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"][number % 2])
        until(lambda: len(running.server_state.connections) == 6)
        assert is_closed(stack.enter_context(socket.create_connection(address)))
        assert all(map(is_closed, silent))
        until(lambda: not running.server_state.connections)
        url = f"https://{address[0]}:{address[1]}"
        assert httpx.get(f"{url}/health", verify=trusted, timeout=SECONDS).status_code == 200


def test_what_is_no_handshake_or_breaks_off_is_let_go_of(
    tmp_path: Path, tls: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with encrypted(tmp_path, tls) as (address, running, _), ExitStack() as stack:
        plain, gone = (stack.enter_context(socket.create_connection(address)) for _ in range(2))
        plain.sendall(GET)
        while not is_closed(plain):
            pass  # it is told in TLS's words
        gone.sendall(b"\x16\x03\x01")
        until(lambda: running.server_state.connections)
        gone.close()
        until(lambda: not running.server_state.connections)
        doubting = stack.enter_context(socket.create_connection(address))
        with pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(doubting, server_hostname="localhost")
        until(lambda: not running.server_state.connections)
    assert not caplog.records


def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered(tmp_path: Path, tls: dict[str, str]) -> None:
    with encrypted(tmp_path, tls) as (address, _, trusted), socket.create_connection(address, SECONDS) as connection:
        come, go = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = trusted.wrap_bio(come, go, server_hostname="localhost")
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(go.read())
                come.write(connection.recv(65_536) or pytest.fail("closed"))
        client.write(GET)
        connection.sendall(go.read())  # the end of the handshake and the request, as one
        said = b""
        while b"ok" not in said:
            come.write(connection.recv(65_536) or pytest.fail("closed"))
            try:
                said += client.read()
            except ssl.SSLWantReadError:
                continue
        assert b" 200 " in said


def test_a_handshake_under_way_holds_no_shutdown_up(tmp_path: Path, tls: dict[str, str]) -> None:
    with encrypted(tmp_path, tls) as (address, running, _):
        waiting = socket.create_connection(address)
        until(lambda: running.server_state.connections)
    assert not running.server_state.connections and is_closed(waiting)
    waiting.close()


def test_a_certificate_that_is_none_is_said_before_anything_is_loaded(tmp_path: Path, tls: dict[str, str]) -> None:
    other = certificate(tmp_path, "-passout", "pass:secret")
    for wrong in ({**tls, "key": other["key"]}, {"certificate": tls["key"], "key": tls["key"]}, other):
        with pytest.raises(RecipeError, match=r"serve\.tls: .* no certificate with its key"):
            server.check(ServeConfig.model_validate({"tls": wrong}), has_key=True)
    server.check(ServeConfig.model_validate({"tls": tls}), has_key=True)
