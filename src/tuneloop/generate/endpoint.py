"""One OpenAI-compatible server over HTTP: patient where waiting helps, clear where it does not.

Knows no conversations. The key comes from an environment variable alone, and nothing else of the environment counts:
no proxy, no .netrc; redirects are errors, as they would carry prompts and the key to a place that nobody named.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import random
import time
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx

from tuneloop.core.errors import ModelError
from tuneloop.core.plugins import listed

TRIES = 6
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before the second try, doubled each time; a server's Retry-After counts up to the longest."""
AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
REFUSED = frozenset({400, 413, 422})
VOLATILE = frozenset({"created", "permission"})  # new in each answer of vLLM


class Refused(Exception):
    """The server takes this one request for wrong (too long, not allowed); others may succeed."""


def address(url: str) -> str:
    """The address as requests use it; a bare host gets /v1. Raises ModelError for one that is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ModelError(f"'{url}' is no address of a server; write it like http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query:
        raise ModelError("the address of a server must hold no secrets; put the key into an environment variable")
    return url.rstrip("/") if parts.path.strip("/") else url.rstrip("/") + "/v1"


class Endpoint:
    """An open connection to the server at `url`, as `address` gives it; `timeout`: seconds an answer may take."""

    def __init__(self, url: str, model: str, key_env: str, concurrency: int, timeout: float) -> None:
        self.url, self.model, self.key_env = url, model, key_env
        key = os.environ.get(key_env, "").strip()
        self._has_key, self._answered = bool(key), False
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout, connect=10.0),
            limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            trust_env=False,
            follow_redirects=False,
        )

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def models(self) -> dict[str, Any] | None:
        """What the server says of each model it serves; None where it does not say."""
        try:
            found = await self._send("GET", "/models", None)
        except (_NotThere, Refused):
            return None
        entries = found.get("data")
        if not isinstance(entries, list):
            return None
        named = [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
        return {entry["id"]: {key: entry[key] for key in entry.keys() - VOLATILE} for entry in named}

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The JSON answer. Raises Refused for this request, ModelError for a server that answers none."""
        try:
            return await self._send("POST", path, body)
        except _NotThere as error:
            known = await self.models()
            raise ModelError(self._not_there(path, str(error), known)) from error

    async def _send(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        for attempt in range(1, TRIES + 1):
            try:
                response = await self._client.request(method, self.url + path, json=body)
            except httpx.ConnectError as error:
                if not self._answered or attempt == TRIES:
                    raise ModelError(self._unreachable(error)) from error
                await asyncio.sleep(_wait(attempt, None))
            except httpx.TransportError as error:
                if attempt == TRIES:
                    what = f"{type(error).__name__} {error}".strip()
                    raise ModelError(f"{self.url}{path} failed {TRIES} times, last by {what}") from error
                await asyncio.sleep(_wait(attempt, None))
            else:
                self._answered = True
                if response.status_code == 200:
                    return self._json(response, path)
                self._raise(response, path, last=attempt == TRIES)
                await asyncio.sleep(_wait(attempt, response.headers.get("Retry-After")))
        raise AssertionError("the last attempt returns or raises")

    def _json(self, response: httpx.Response, path: str) -> dict[str, Any]:
        try:
            found = response.json()
        except ValueError as error:
            raise ModelError(self._no_api(path, response.text)) from error
        if not isinstance(found, dict):
            raise ModelError(self._no_api(path, response.text))
        return found

    def _raise(self, response: httpx.Response, path: str, last: bool) -> None:
        """Returns where another try may help."""
        status, said = response.status_code, _message(response)
        if status in REFUSED:
            raise Refused(said)
        if status == 404:
            raise _NotThere(said)
        if status == 401:
            next_step = (
                f"it does not accept the key in ${self.key_env}" if self._has_key
                else f"it wants a key: put it into the environment variable {self.key_env}"
            )  # fmt: skip
            raise ModelError(f"{self.url}: {next_step} ({said})")
        if status == 429 and "insufficient_quota" in response.text:
            raise ModelError(f"{self.url}: the account of ${self.key_env} has no quota left ({said})")
        if response.is_redirect:
            to = response.headers.get("Location")
            raise ModelError(
                f"{self.url}{path} redirects to {to}, which is not followed; give that address if it is meant"
            )
        if status not in AGAIN or last:
            tries = f" {TRIES} times" if status in AGAIN else ""
            raise ModelError(f"{self.url}{path} answered {status}{tries}: {said}")

    def _unreachable(self, error: Exception) -> str:
        return (
            f"no server answers at {self.url} ({error}). Start it, e.g. `vllm serve {self.model}` or "
            "`llama-server -m model.gguf`, or correct the address"
        )

    def _not_there(self, path: str, said: str, known: dict[str, Any] | None) -> str:
        if known and self.model not in known:
            return f"{self.url} has no model '{self.model}'; it has: {listed(sorted(known))}"
        return f"{self.url}{path} is not there ({said}): is the address right? It usually ends with /v1"

    def _no_api(self, path: str, text: str) -> str:
        return f"{self.url}{path} answers no JSON object but {text[:80]!r}: is this an OpenAI-compatible server?"


class _NotThere(Exception):
    """404: no such path or no such model."""


def _wait(attempt: int, retry_after: str | None) -> float:
    """Seconds: what the server asks for, else doubled with each attempt; spread, so that not all come at once."""
    asked = _seconds(retry_after) if retry_after else None
    if asked is not None:
        return min(max(asked, 0.0), LONGEST_WAIT) + random.uniform(0, FIRST_WAIT / 2)
    return min(FIRST_WAIT * 2 ** (attempt - 1), LONGEST_WAIT) * random.uniform(0.5, 1.0)


def _seconds(retry_after: str) -> float | None:
    """Of the header Retry-After: seconds or a date (RFC 9110, section 10.2.3)."""
    try:
        return float(retry_after)
    except ValueError:
        pass
    try:
        return email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
    except ValueError:
        return None


def _message(response: httpx.Response) -> str:
    """What the server says is wrong, in one line."""
    try:
        found = response.json()
    except ValueError:
        found = None
    error = found.get("error", found) if isinstance(found, dict) else found
    said = error.get("message", error.get("detail")) if isinstance(error, dict) else error
    text = said if isinstance(said, str) else json.dumps(said) if said is not None else response.text
    return " ".join(text.split())[:300] or response.reason_phrase
