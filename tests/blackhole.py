"""A way to a server that can fall silent: connections are accepted, and nothing goes through until `resume`."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from sqlalchemy.engine import make_url


class Blackhole:
    """Forwards from a port of this machine to a server's socket file."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._open = threading.Event()
        self._open.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self) -> None:
        """From now on nothing is passed on, in either direction; the system still acknowledges it."""
        self._open.clear()

    def resume(self) -> None:
        """What was held back goes on."""
        self._open.set()

    def close(self) -> None:
        """Ends all connections."""
        self.resume()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._target)
                self._sockets += [client, server]
                for here, there in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=[here, there], daemon=True).start()

    def _pass_on(self, here: socket.socket, there: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := here.recv(1 << 16):
                self._open.wait()
                there.sendall(data)
            self._open.wait()
            there.shutdown(socket.SHUT_WR)


@contextmanager
def blackhole(target: str) -> Iterator[Blackhole]:
    """To a UNIX socket; closed at the end."""
    made = Blackhole(target)
    try:
        yield made
    finally:
        made.close()


def before_postgres(server: str) -> AbstractContextManager[Blackhole]:
    """A way to the PostgreSQL server of a URL, which listens on a socket file."""
    return blackhole(f"{make_url(server).query['host']}/.s.PGSQL.5432")


def through(way: Blackhole, database: str) -> str:
    """The URL of a database at the other end."""
    known = make_url(database).set(query={"connect_timeout": "2"}, host="127.0.0.1", port=way.port)
    return known.render_as_string(hide_password=False)
