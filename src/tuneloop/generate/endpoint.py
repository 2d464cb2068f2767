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
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx

from tuneloop.core import digest
from tuneloop.core.errors import ModelError
from tuneloop.core.plugins import listed
from tuneloop.generate.live import Busy

TRIES = 6
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before the second try, doubled each time; a server's Retry-After counts up to the longest."""
AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
REFUSED = frozenset({400, 413, 422})
BUSY = frozenset({429, 503, 529})
VOLATILE = frozenset({"created", "permission"})  # new in each answer of vLLM
IDLE = 3.0
"""Seconds that an unused connection is kept: uvicorn closes its end after 5, and both at once lose a request."""
MOST_ERROR, MOST_EVENT = 1 << 16, 1 << 20
"""Bytes that are read of an error, and of one event of a stream."""


class Unreachable(ModelError):
    """Nobody answers at all."""


class Broken(ModelError):
    """The connection broke before the end of an answer."""


class Missing(ModelError):
    """The server does not have the model, or the path."""


class Denied(ModelError):
    """The key is not good for this, or there is none."""


class NotThere(Exception):
    """404 or 405: no such path or no such model."""


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
    """An open connection to the server at `url`, as `address` gives it; `timeout`: seconds in which something of an
    answer must come, None for no limit; `tries`: how often a request is sent where that may help."""

    def __init__(
        self, url: str, model: str, key_env: str, concurrency: int, timeout: float | None, *, tries: int | None = None
    ) -> None:
        self.url, self.model, self.key_env, self.tries = url, model, key_env, tries or TRIES
        key = os.environ.get(key_env, "").strip()
        self._has_key, self._answered = bool(key), False
        self._renamed = False
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout, connect=10.0),
            limits=httpx.Limits(
                max_connections=concurrency, max_keepalive_connections=concurrency, keepalive_expiry=IDLE
            ),
            trust_env=False,
            follow_redirects=False,
        )

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def models(self) -> dict[str, dict[str, Any]] | None:
        """What the server says of each model it serves; None where it does not say."""
        try:
            found = await self._json(await self._send("GET", f"{self.url}/models", None))
        except (NotThere, Refused):
            return None
        entries = found.get("data")
        if not isinstance(entries, list):
            return None
        named = [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
        return {entry["id"]: {key: entry[key] for key in entry.keys() - VOLATILE} for entry in named}

    def demand(self, models: dict[str, dict[str, Any]] | None) -> None:
        """Raises Missing where the server says what it serves, and it is not this model."""
        if models is not None and self.model not in models:
            raise Missing(f"{self.url} has no model '{self.model}'; it has: {listed(sorted(models))}")

    def identity(self, models: dict[str, dict[str, Any]] | None) -> str:
        """Digest of address, model and what the server says of it; weights replaced under their name it cannot see."""
        return digest.of_value([self.url, self.model, (models or {}).get(self.model)])

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The JSON answer. Raises Refused for this request, ModelError for a server that answers none; where there is
        only one try, Busy for one that has no room."""
        return await self._json(await self._found(path, body))

    async def events(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """The events of a stream, as they come, to the mark of its end. Raises as `post`, also in the middle."""
        response = await self._found(path, body)
        where = self.url + path
        try:
            kind = response.headers.get("Content-Type", "nothing that it names")
            if not kind.startswith("text/event-stream"):
                raise ModelError(f"{where} answers no stream of events but {kind[:80]}: it cannot be served from")
            async for event in httpx.EventSource(response, MOST_EVENT):
                if event.data == "[DONE]":
                    return
                try:
                    found = json.loads(event.data)
                except (ValueError, RecursionError) as error:
                    raise ModelError(f"{where} sends events that are no JSON") from error
                if not isinstance(found, dict):
                    raise ModelError(f"{where} sends events that are no JSON objects")
                yield found
        except httpx.TransportError as error:
            raise Broken(f"the answer of {where} broke off by {_what(error)}") from error
        finally:
            await response.aclose()

    async def command(self, url: str, body: dict[str, Any]) -> str:
        """What a server says to an order beside OpenAI's API, at a whole URL. Raises NotThere, else as `post`."""
        response = await self._send("POST", url, body)
        await response.aread()
        return response.text

    async def _found(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """The open answer to a request."""
        if self._renamed and "max_tokens" in body:
            body = {**body, "max_completion_tokens": body["max_tokens"]}
            del body["max_tokens"]
        try:
            return await self._send("POST", self.url + path, body)
        except NotThere as error:
            raise Missing(self._not_there(path, body["model"], str(error), await self.models())) from error
        except Refused as error:
            # newer models of OpenAI know the limit by this name alone, older servers by the other one alone
            if "max_tokens" not in body or "max_completion_tokens" not in str(error):
                raise
            self._renamed = True
            return await self._found(path, body)

    async def _send(self, method: str, url: str, body: dict[str, Any] | None) -> httpx.Response:
        """The answer of status 200, its body not read yet."""
        for attempt in range(1, self.tries + 1):
            try:
                response = await self._client.send(self._client.build_request(method, url, json=body), stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                if not self._answered or attempt == self.tries:
                    raise Unreachable(self._unreachable(error)) from error
                await asyncio.sleep(_wait(attempt, None))
            except httpx.TransportError as error:
                if attempt == self.tries:
                    raise Broken(f"{url} failed{_times(self.tries)}, last by {_what(error)}") from error
                await asyncio.sleep(_wait(attempt, None))
            else:
                self._answered = True
                if response.status_code == 200:
                    return response
                self._raise(response, await _beginning(response), last=attempt == self.tries)
                await asyncio.sleep(_wait(attempt, response.headers.get("Retry-After")))
        raise AssertionError("the last attempt returns or raises")

    async def _json(self, response: httpx.Response) -> dict[str, Any]:
        try:
            await response.aread()
            found = response.json()
        except httpx.TransportError as error:
            raise Broken(f"the answer of {response.url} broke off by {_what(error)}") from error
        except ValueError as error:
            raise ModelError(self._no_api(response)) from error
        if not isinstance(found, dict):
            raise ModelError(self._no_api(response))
        return found

    def _raise(self, response: httpx.Response, text: str, last: bool) -> None:
        """Returns where another try may help."""
        status, url = response.status_code, response.url
        said = _message(text) or response.reason_phrase
        if status in REFUSED:
            raise Refused(said)
        if status in (404, 405):
            raise NotThere(said)
        if status == 401:
            next_step = (
                f"it does not accept the key in ${self.key_env}" if self._has_key
                else f"it wants a key: put it into the environment variable {self.key_env}"
            )  # fmt: skip
            raise Denied(f"{self.url}: {next_step} ({said})")
        if status == 403:
            raise Denied(f"{url} answered 403: {said}")
        if status == 429 and "insufficient_quota" in text:
            raise ModelError(f"{self.url}: the account of ${self.key_env} has no quota left ({said})")
        if response.is_redirect:
            to = response.headers.get("Location")
            raise ModelError(f"{url} redirects to {to}, which is not followed; give that address if it is meant")
        if status in BUSY and self.tries == 1:  # whoever does not wait in here may wait elsewhere
            raise Busy(f"{url} has no room: {said}", _seconds(response.headers.get("Retry-After")) or 1.0)
        if status not in AGAIN or last:
            tries = _times(self.tries) if status in AGAIN else ""
            kind = Unreachable if status == 502 else ModelError  # a proxy says that nobody is behind it
            raise kind(f"{url} answered {status}{tries}: {said}")

    def _unreachable(self, error: Exception) -> str:
        return (
            f"no server answers at {self.url} ({_what(error)}). Start it, e.g. `vllm serve {self.model or 'MODEL'}` or "
            "`llama-server -m model.gguf`, or correct the address"
        )

    def _not_there(self, path: str, model: str, said: str, known: dict[str, Any] | None) -> str:
        if known and model not in known:
            return f"{self.url} has no model '{model}'; it has: {listed(sorted(known))}"
        return f"{self.url}{path} is not there ({said}): is the address right? It usually ends with /v1"

    def _no_api(self, response: httpx.Response) -> str:
        said = response.text[:80]
        return f"{response.url} answers no JSON object but {said!r}: is this an OpenAI-compatible server?"


def _times(tries: int) -> str:
    return f" {tries} times" if tries > 1 else ""


def _what(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip()


def _wait(attempt: int, retry_after: str | None) -> float:
    """Seconds: what the server asks for, else doubled with each attempt; spread, so that not all come at once."""
    asked = _seconds(retry_after)
    if asked is not None:
        return asked + random.uniform(0, FIRST_WAIT / 2)
    return min(FIRST_WAIT * 2 ** (attempt - 1), LONGEST_WAIT) * random.uniform(0.5, 1.0)


def _seconds(retry_after: str | None) -> float | None:
    """Of the header Retry-After, seconds or a date (RFC 9110, section 10.2.3); at most the longest wait."""
    if not retry_after:
        return None
    try:
        found = float(retry_after)
    except ValueError:
        try:
            found = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(found, 0.0), LONGEST_WAIT)


async def _beginning(response: httpx.Response) -> str:
    """Of an error's body, which then is closed."""
    data = b""
    try:
        async for part in response.aiter_bytes():
            data += part
            if len(data) > MOST_ERROR:
                break
    except httpx.TransportError:
        pass  # its status says enough
    finally:
        await response.aclose()
    return data[:MOST_ERROR].decode("utf-8", "replace")


def _message(text: str) -> str:
    """What the server says is wrong, in one line."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    return complaint(found) or " ".join(text.split())[:300]


def complaint(found: Any) -> str:
    """What an error as JSON says is wrong, in one line; empty where it says nothing."""
    error = found.get("error", found) if isinstance(found, dict) else found
    if isinstance(error, dict):
        error = next((error[key] for key in ("message", "detail", "error_message") if error.get(key)), None)
    text = error if isinstance(error, str) else json.dumps(error) if error is not None else ""
    return " ".join(text.split())[:300]
