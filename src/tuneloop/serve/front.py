"""The door that every request passes before any route is looked for: host, origin, key, size, headers, log.

Behind it are the API, whose askers show a key, and a site of pages, whose visitors show the cookie of a session.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import time
import traceback
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tuneloop.core.errors import StoreError
from tuneloop.serve.auth import LOCAL, NOBODY, OPEN
from tuneloop.serve.errors import Refused, store_unavailable
from tuneloop.serve.limits import Pace

if TYPE_CHECKING:
    from tuneloop.serve.service import Service

LOG = logging.getLogger("tuneloop.serve")
HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""On every answer, where the route did not say otherwise. There is no CORS header: other sites' pages read nothing."""
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:@/?#\[\]]+)(?::\d{1,5})?")
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
METHODS = SAFE | {"POST", "PUT", "PATCH", "DELETE"}


MESSAGES, BURST, MESSAGE_SIZE = 100.0, 2.0, 16_384
"""Messages of one WebSocket a second, of how many seconds at once, and characters that count as one more."""


class Site(Protocol):
    """Pages for people, which whoever starts the service puts beside the API. An ASGI application: `scope["visitor"]`
    tells it who came."""

    open: frozenset[tuple[str, str]]
    """(method, path) of all that is answered to visitors without a session."""
    home: str
    """The path at which visitors without a session are sent to `login`."""
    login: str

    def place(self, kind: str, path: str) -> str | None:
        """A name for logs of where a path (of kind http or websocket) leads; None where it is none of the site's."""
        ...

    def running(self) -> AbstractAsyncContextManager[Any]:
        """Entered before the first request, left after the last."""
        ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class Front:
    """ASGI middleware around all routes, whatever they are: routes, mounts, files, paths that do not exist."""

    def __init__(self, app: ASGIApp, service: Service, site: Site | None = None) -> None:
        self.app, self.service, self.site = app, service, site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers refusals itself; what raises further in is logged without its message, which may quote a prompt."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        passage = _Passage(scope, receive, send, self.service)
        try:
            inner = await self._admit(scope)
            await inner(scope, passage.receive, passage.send)
        except Refused as refused:
            await passage.refuse(refused)
        except StoreError as error:  # its messages quote no values
            LOG.error("the store: %s", error)
            await passage.refuse(store_unavailable("the store does not answer"))
        except ClientDisconnect:
            passage.status = passage.status or 499
        except Exception as error:  # noqa: BLE001  # the one place where faults end: 500, and a line that tells where
            where = "".join(traceback.format_tb(error.__traceback__))
            LOG.error("%s in %s %s\n%s", type(error).__name__, _method(scope), _route(scope), where)
            await passage.refuse(Refused(500, "a fault of the server; its log tells more", code="server_error"))
        finally:
            passage.log()

    async def _admit(self, scope: Scope) -> ASGIApp:
        """Where a request goes on to, with `scope["who"]` set. Raises Refused."""
        headers = Headers(scope=scope)
        if "transfer-encoding" in headers and "content-length" in headers:  # a proxy may see another request's begin
            raise Refused(400, "a request has one length only", code="two_lengths", headers={"Connection": "close"})
        host = headers.get("host", "")
        if not _is_known(host, self.service.hosts):
            raise Refused(421, f"no service under the name '{host[:80]}' (serve.hosts)", code="unknown_host")
        origin, method = headers.get("origin"), _method(scope)
        if origin is not None and method not in SAFE and origin.partition("://")[2] != host:
            raise Refused(403, "requests from other sites' pages are not taken", code="foreign_origin")
        size = headers.get("content-length", "0")
        if not size.isdecimal() or int(size) > self.service.config.limits.body_bytes:
            raise _too_large(self.service.config.limits.body_bytes)
        place = self.site.place(scope["type"], scope["path"]) if self.site is not None else None
        if self.site is not None and place is not None:
            scope["place"] = place
            await self._visit(self.site, scope, headers)
            return self.site
        if scope["type"] == "websocket":  # the API speaks none
            raise Refused(403, "no websocket here", code="no_websocket")
        if (method, scope["path"]) in OPEN:
            scope["who"] = NOBODY
        else:
            scope["who"] = await self.service.doorkeeper.who(headers.get("authorization"))
        return self.app

    async def _visit(self, site: Site, scope: Scope, headers: Headers) -> None:
        """Lets a visitor in by the cookie alone, never by a key in a header."""
        if scope["type"] == "websocket" and "origin" not in headers:  # a browser says where it comes from
            raise Refused(403, "a websocket needs an Origin", code="foreign_origin")
        scope["who"] = NOBODY
        if (_method(scope), scope["path"]) in site.open:
            return
        try:
            scope["visitor"] = await self.service.sessions.visitor(headers.get("cookie", ""))
        except Refused as refused:
            if refused.status_code == 503 or (_method(scope), scope["path"]) != ("GET", site.home):
                raise
            if not self.service.doorkeeper.open_to_all:
                raise Refused(303, refused.detail, code=refused.code, headers={"Location": site.login}) from None
            scope["visitor"], scope["new"] = self.service.sessions.begin(LOCAL)
        scope["who"] = scope["visitor"].who


class _Passage:
    """One request on its way: counts what comes in, adds headers to what goes out, remembers what to log."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, service: Service) -> None:
        self._scope, self._receive, self._send, self._service = scope, receive, send, service
        self._begun = time.monotonic()
        self._arrived, self._whole = 0, False
        self._pace = Pace(MESSAGES, BURST)
        self.status = 0

    async def receive(self) -> Message:
        if self._scope["type"] == "websocket":
            return await self._receive_message()
        if self._whole:  # only waiting for the client to leave
            return await self._receive()
        limits = self._service.config.limits
        try:
            async with asyncio.timeout_at(self._begun_in_loop() + limits.read_timeout):
                message = await self._receive()
        except TimeoutError:
            raise Refused(408, f"the request did not arrive in {limits.read_timeout:g} s", code="slow") from None
        self._arrived += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._arrived > limits.body_bytes:
            raise _too_large(limits.body_bytes)
        return message

    async def _receive_message(self) -> Message:
        """What a page says, at its pace: typing is 30 messages a second, and each costs all others time."""
        message = await self._receive()
        if message["type"] == "websocket.receive":
            size = len(message.get("text") or message.get("bytes") or "")
            if delay := self._pace.delay(1 + size / MESSAGE_SIZE):
                await asyncio.sleep(delay)
        return message

    def _begun_in_loop(self) -> float:
        return asyncio.get_running_loop().time() - (time.monotonic() - self._begun)

    async def send(self, message: Message) -> None:
        if message["type"] in ("websocket.accept", "websocket.close"):
            self.status = self.status or (101 if message["type"] == "websocket.accept" else 403)
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)

    async def refuse(self, refused: Refused) -> None:
        if self._scope["type"] == "websocket":
            await self.send({"type": "websocket.close", "code": 1011 if self.status else 1008})
        elif not self.status:
            await refused.response()(self._scope, self._receive, self.send)

    def log(self) -> None:
        """One line a request: no prompt, no answer, no key, no query."""
        seconds = time.monotonic() - self._begun
        route, who = _route(self._scope), self._scope.get("who")
        self._service.meters.request(route, self.status, seconds)
        facts = "".join(f" {name}={value}" for name, value in self._scope.get("facts", {}).items())
        LOG.info(
            "%s %s %d %.0fms key=%s%s",
            _method(self._scope), route, self.status, seconds * 1000, (who and who.id) or "-", facts,
        )  # fmt: skip


def _method(scope: Scope) -> str:
    """Of a request; what a client invents (30 kB, say) stays out of the log."""
    if scope["type"] == "websocket":
        return "WEBSOCKET"
    return scope["method"] if scope["method"] in METHODS else "OTHER"


def _route(scope: Scope) -> str:
    """The route's pattern, not the path: what a client invents stays out of logs and metrics."""
    return scope.get("place") or getattr(scope.get("route"), "path", None) or "(none)"


def _is_known(host: str, names: frozenset[str]) -> bool:
    """Whether a Host header names this service. An IP address always does: DNS rebinding needs a name."""
    match = HOST.fullmatch(host.lower())
    if match is None:
        return False
    name = match[1].strip("[]")
    if name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _too_large(limit: int) -> Refused:
    return Refused(413, f"the request is larger than {limit:,} bytes", code="too_large")
