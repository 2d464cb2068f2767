"""The page that asks for a key: a plain form without any script, the only page that is open to everybody."""

from __future__ import annotations

import secrets
from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from tuneloop.web import frame
from tuneloop.web.words import word

POLICY = "default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
PAGE = """<!doctype html>
<html lang="{language}"><head><meta charset="utf-8"><title>tuneloop</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style nonce="{nonce}">{style}</style></head>
<body class="{theme}"><main><form class="tl-login" method="post" action="/login">
<h1 class="tl-question">{login}</h1>{wrong}
<label for="key">{key}</label>
<input id="key" name="key" type="password" autocomplete="current-password" maxlength="200" required autofocus>
<button>{enter}</button>
</form></main></body></html>
"""


def page(request: Request, *, wrong: bool = False) -> Response:
    """The form; `wrong`: a key was given that may not chat."""
    language, nonce = frame.language_of(request), secrets.token_urlsafe(16)
    texts = {name: escape(word(name, language)) for name in ("login", "key", "enter", "wrong_key")}
    theme = {True: "body--dark", False: "body--light", None: ""}[frame.theme_of(request)]
    told = f'<p class="tl-wrong" role="alert">{texts.pop("wrong_key")}</p>' if wrong else ""
    html = PAGE.format_map({**texts, "language": language, "nonce": nonce, "style": frame.style(), "theme": theme,
                            "wrong": told})  # fmt: skip
    return HTMLResponse(html, 401 if wrong else 200, headers=frame.guards(POLICY.format(nonce=nonce)))
