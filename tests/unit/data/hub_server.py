"""A hub on this machine: one data set over the protocol that the library `datasets` speaks, ranges included."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlparse

COMMIT = "a" * 40
API = "/api/datasets/org/name"


class Hub(ThreadingHTTPServer):
    """Serves `files` (paths below `data/`) as the data set org/name."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files = files
        self.sent = 0
        """Bytes of files so far."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def hub(files: Mapping[str, bytes]) -> Iterator[Hub]:
    """A hub while the block runs."""
    with Hub(files) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        assert isinstance(self.server, Hub)
        return self.server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        found = re.fullmatch(r"/datasets/org/name/resolve/[^/]+/(.*)", path)
        if path.startswith(f"{API}/tree/"):
            listed = [
                {"type": "file", "oid": "b" * 40, "size": len(data), "path": name}
                for name, data in self.hub.files.items()
            ]
            below = path.endswith("/data")
            self._json(listed if below else [{"type": "directory", "oid": "c" * 40, "size": 0, "path": "data"}])
        elif path == API or path.startswith(f"{API}/revision/"):
            siblings = [{"rfilename": name} for name in self.hub.files]
            self._json({"id": "org/name", "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})
        elif found and found[1] in self.hub.files:
            self._file(self.hub.files[found[1]])
        else:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_GET

    def _file(self, data: bytes) -> None:
        start, stop = 0, len(data)
        headers = {"ETag": '"e"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            start, stop = int(wanted[1]), min(int(wanted[2] or stop - 1) + 1, stop)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        if self.command == "GET":
            self.hub.sent += stop - start
        self._send(206 if wanted else 200, data[start:stop], headers)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
