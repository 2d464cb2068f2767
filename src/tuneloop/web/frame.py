"""The frame that all pages share: colours, fonts, header with theme and language, and what a browser may load."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request, Response
from nicegui import app as nicegui_app
from nicegui import ui
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware

from tuneloop.web.words import Language, spoken

POLICY = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""`unsafe-eval`: Vue compiles its templates in the browser. Scripts of a page's own text stay impossible: no nonce."""
ACCENT = "#0a7d5a"
SCRIPT = re.compile(rb"<script(?=[\s>])")


def _style() -> str:
    return resources.files("tuneloop.web").joinpath("style.css").read_text("utf-8")


class Policy(BaseHTTPMiddleware):
    """Content-Security-Policy for pages: each script that we send carries a nonce, so that none that got into a page
    by an answer or a name can run."""

    async def dispatch(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        if not response.headers.get("content-type", "").startswith("text/html"):
            return response
        nonce = secrets.token_urlsafe(16)
        body = b"".join([part async for part in response.body_iterator])  # type: ignore[attr-defined]
        body = SCRIPT.sub(b'<script nonce="' + nonce.encode() + b'"', body)
        headers = {name: value for name, value in response.headers.items() if name.lower() != "content-length"}
        found = Response(body, response.status_code, headers)
        found.headers["content-security-policy"] = POLICY.format(nonce=nonce)
        return found


def dress() -> None:
    """Colours and style of a page; called first in each."""
    ui.colors(primary=ACCENT)
    ui.add_css(_style())


def language_of(request: Request) -> Language:
    """The language that the browser asks for."""
    return spoken(request.headers.get("accept-language", ""))


def session() -> str:
    """The id of the browser's session, in a signed cookie."""
    return str(nicegui_app.storage.browser["id"])


def mount(app: FastAPI, title: str, secret: str) -> None:
    """Puts the pages onto the server's app. `secret` signs the session cookie.

    No Tailwind (it compiles styles in the browser), no telemetry, nothing loaded from outside.
    """
    cookie: dict[str, Any] = {"same_site": "strict", "https_only": False, "session_cookie": "tuneloop"}
    ui.run_with(
        app, title=title, dark=None, tailwind=False, storage_secret=secret, show_welcome_message=False,
        session_middleware_kwargs=cookie, binding_refresh_interval=None, gzip_middleware_factory=None,
    )  # fmt: skip
    app.add_middleware(Policy)
    app.add_middleware(GZipMiddleware, minimum_size=500)  # after the nonces are in
