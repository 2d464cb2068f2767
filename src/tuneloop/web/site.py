"""The pages as a site beside the API (serve/front.py lets visitors in): where its places are, who logs in and out."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import parse_qs

from nicegui import app as pages
from nicegui import core
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Message, Receive, Scope, Send

from tuneloop.serve.auth import Who
from tuneloop.serve.errors import Refused
from tuneloop.serve.service import Service
from tuneloop.web import chat, frame, login
from tuneloop.web.visit import Visit

LONGEST_FORM = 4_096
ASSETS, SOCKET = "/_nicegui/", "/_nicegui_ws/socket.io/"


class Site:
    """The site of one service. A process runs one at a time: NiceGUI is one a process."""

    home, login = "/", "/login"
    open = frozenset({("GET", "/login"), ("POST", "/login"), ("POST", "/logout")})

    def __init__(self, service: Service) -> None:
        self._service = service
        chat.add()
        self._pages = frame.application()

    def place(self, kind: str, path: str) -> str | None:
        """As `Site.place` of serve/front.py: pages, assets of the package, the socket of open pages."""
        if kind == "websocket":
            return SOCKET if path == SOCKET else None
        if path in ("/", "/login", "/logout", "/favicon.ico"):
            return path
        return ASSETS if path.startswith(ASSETS) else None

    def running(self) -> AbstractAsyncContextManager[Any]:
        """NiceGUI's start and end."""
        core.sio.eio.max_http_buffer_size = self._service.config.limits.body_bytes
        return pages.router.lifespan_context(pages)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (scope.get("method"), scope["path"]) in self.open:
            await (await self._door(Request(scope, receive)))(scope, receive, send)
            return
        visitor, who = scope["visitor"], scope["who"]
        if scope["path"] == "/" or scope["type"] == "websocket":  # each takes memory
            self._service.requests.take(who.id)
        scope["talk"] = Visit(self._service, visitor)
        # a page would write this header's value into its addresses
        scope["headers"] = [one for one in scope["headers"] if not one[0].startswith(b"x-forwarded-")]

        async def with_session(message: Message) -> None:
            if message["type"] == "http.response.start" and "new" in scope:
                cookie = self._service.sessions.header(scope["new"], secure=_is_secure(scope))
                MutableHeaders(scope=message).append("Set-Cookie", cookie)
            await send(message)

        await self._pages(scope, receive, with_session)

    async def _door(self, request: Request) -> Response:
        """What is answered to everybody."""
        if request.method == "GET":
            return login.page(request)
        cookie = ""
        if request.url.path == "/login":
            body = await request.body()  # everybody may send one: a megabyte of fields is not taken apart
            form = parse_qs(body.decode("utf-8", "replace")) if len(body) <= LONGEST_FORM else {}
            who = await self._who(form.get("key", [""])[0].strip())
            if who is None:
                return login.page(request, wrong=True)
            cookie = self._service.sessions.begin(who)[1]
        header = self._service.sessions.header(cookie, secure=_is_secure(request.scope))
        return RedirectResponse("/", 303, headers={"Set-Cookie": header})

    async def _who(self, key: str) -> Who | None:
        try:
            who = await self._service.doorkeeper.who(f"Bearer {key}")
        except Refused as refused:
            if refused.status_code != 401:  # the key may be good
                raise
            return None
        return who if "chat" in who.roles else None


def _is_secure(scope: Scope) -> bool:
    """Whether the browser came by TLS: here, or at a proxy, which only the browser's own Origin tells."""
    return scope["scheme"] == "https" or Headers(scope=scope).get("origin", "").startswith("https://")
