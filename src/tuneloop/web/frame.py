"""The frame that all pages share: colours, style, theme and language, and what a browser may load and run."""

from __future__ import annotations

import logging
import re
import secrets
import traceback
from functools import cache
from importlib import resources
from typing import Literal

from fastapi import FastAPI
from nicegui import app as pages
from nicegui import core, ui
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tuneloop.serve.sessions import cookies_of
from tuneloop.web.words import LANGUAGES, Language, spoken

POLICY = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""`unsafe-eval`: Vue compiles its templates in the browser. Scripts of a page's own text stay impossible: no nonce."""
ACCENT = "#0a7d5a"
SCRIPT = re.compile(rb"<script(?=[\s>])")
KEPT = 365 * 24 * 3600
OUTWARD = """<script>document.addEventListener("click", event => {
  const link = event.target.closest(".tl-text a");
  if (link) { link.target = "_blank"; link.rel = "noopener noreferrer"; }
}, true)</script>"""
"""Links in answers open beside the page, which would lose its conversation."""


def style() -> str:
    """The style sheet of all pages."""
    return resources.files("tuneloop.web").joinpath("style.css").read_text("utf-8")


def guards(policy: str) -> dict[str, str]:
    """Headers of a page: its policy; and its own forms are to say where they come from, which the door looks at."""
    return {"content-security-policy": policy, "referrer-policy": "same-origin"}


class Policy:
    """Content-Security-Policy for pages: each script that we send carries a nonce, so that none that got into a page
    by an answer or a name can run."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        held: Message | None = None
        body = b""

        async def rewritten(message: Message) -> None:
            nonlocal held, body
            if message["type"] == "http.response.start":
                if Headers(raw=message["headers"]).get("content-type", "").startswith("text/html"):
                    held = message
                    return
            elif held is not None:
                body += message.get("body", b"")
                if message.get("more_body"):
                    return
                nonce = secrets.token_urlsafe(16)
                whole = SCRIPT.sub(b'<script nonce="' + nonce.encode() + b'"', body)
                headers = MutableHeaders(scope=held)
                headers["content-length"] = str(len(whole))
                headers.update(guards(POLICY.format(nonce=nonce)))
                await send(held)
                message = {"type": "http.response.body", "body": whole}
            await send(message)

        await self._app(scope, receive, rewritten)


def _kept(request: Request, name: str) -> str:
    return cookies_of(request.headers.get("cookie", "")).get(f"tuneloop-{name}", "")


def keep(name: Literal["language", "theme"], value: str) -> str:
    """A line of JavaScript that has the browser remember a choice; `value` is an expression."""
    return f'document.cookie = "tuneloop-{name}=" + {value} + "; Path=/; SameSite=Strict; Max-Age={KEPT}";'


def language_of(request: Request) -> Language:
    """The language that was chosen before, or that the browser asks for."""
    chosen = _kept(request, "language")
    return chosen if chosen in LANGUAGES else spoken(request.headers.get("accept-language", ""))  # type: ignore[return-value]


def theme_of(request: Request) -> bool | None:
    """Whether dark was chosen before; None leaves it to the browser."""
    return {"dark": True, "light": False}.get(_kept(request, "theme"))


def dress(request: Request) -> None:
    """Colours, style and theme of a page; called first in each."""
    ui.colors(primary=ACCENT)
    ui.add_css(style())
    ui.add_body_html(OUTWARD)
    ui.dark_mode(theme_of(request))


def switch_theme() -> str:
    """JavaScript of a button that changes between light and dark."""
    return "() => { Quasar.Dark.toggle(); " + keep("theme", '(Quasar.Dark.isActive ? "dark" : "light")') + " }"


class _WithoutTexts(logging.Filter):
    """NiceGUI and its sockets log faults with their messages, which may quote what a person wrote."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[0] is not None:
            record.msg, record.args = f"{record.exc_info[0].__name__} in a page", ()
            record.exc_text, record.exc_info = "".join(traceback.format_tb(record.exc_info[2])), None
        return True


async def _not_found(request: Request, error: Exception) -> Response:
    # NiceGUI's own answer is a page that keeps memory for a minute
    return PlainTextResponse("not found", 404)


@cache
def application() -> ASGIApp:
    """All pages of this process, which has one NiceGUI: `chat.add` and its like must have been called.

    No Tailwind (it compiles styles in the browser), no telemetry, no files on the disk, nothing loaded from outside.
    """
    ui.run_with(
        FastAPI(), title="tuneloop", dark=None, tailwind=False, show_welcome_message=False,
        binding_refresh_interval=None, gzip_middleware_factory=None,
    )  # fmt: skip
    pages.config.socket_io_js_transports = ["websocket"]
    pages.add_exception_handler(404, _not_found)
    core.sio.on("log", handler=lambda *_: None)  # else browsers could write into the server's log
    for name in ("nicegui", "engineio.server", "socketio.server", "asyncio"):  # the last: tasks of the others
        logging.getLogger(name).addFilter(_WithoutTexts())
    return GZipMiddleware(Policy(pages), minimum_size=500)  # after the nonces are in
