"""Who asks, and what they may: bearer keys with roles. Everything is denied that does not name the role it needs."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from tuneloop.core.errors import RecipeError, StoreError
from tuneloop.serve.clerks import Clerks
from tuneloop.serve.errors import Refused, store_unavailable

if TYPE_CHECKING:
    from tuneloop.store.records import Key
    from tuneloop.store.store import Store

LOG = logging.getLogger("tuneloop.serve")
PREFIX = "tl-"  # of every key of `tuneloop keys create`
OPEN = frozenset({("GET", "/health"), ("GET", "/ready")})
"""All that is answered without a key: two routes for those who watch over the process, which tell nothing else."""
LOCAL_ROLES = frozenset({"chat", "rate"})
"""What anybody on this machine may, and what keys of a key file may."""
REMEMBERED = 2.0  # seconds until keys that are made or revoked count; each request would ask the database otherwise
ANY = "*"
"""Stands for whichever key there is; no id has it."""
MOST_REMEMBERED = 1_024
PATIENCE = 3.0  # seconds until a request is told that its key cannot be looked up
SHORTEST_KEY = 32  # characters of a key in a key file

Bearer = Annotated[
    HTTPAuthorizationCredentials | None,
    Security(HTTPBearer(auto_error=False, description="A key of `tuneloop keys create`.")),
]
"""For the OpenAPI document alone: the key was read at the door (front.py)."""


@dataclass(frozen=True)
class Who:
    """An asker: the id of a key, never the key."""

    id: str
    roles: frozenset[str]


NOBODY = Who("", frozenset())
LOCAL = Who("local", LOCAL_ROLES)
"""Whoever works on this machine, as long as there is no key."""


class Doorkeeper:
    """Tells askers by their keys.

    `open_to_all`: requests without a key may chat and vote (a service that only its own machine can reach, before
    the first key was made). OpenAI's clients always send some key: one that is none of ours by its form then counts as
    none, while one of ours that is unknown or revoked is refused in any case.
    """

    def __init__(self, store: Store, *, open_to_all: bool, key_file: Path | None = None) -> None:
        self._store, self.open_to_all = store, open_to_all
        self._looked = float("-inf")
        # named by its content: another key in the same line of the file is another asker, also for an old session
        hashes = map(_hash, _keys(key_file))
        self._file = {hashed: Who(f"file-{hashed.hex()[:16]}", LOCAL_ROLES) for hashed in hashes}
        self._known: dict[bytes | str, tuple[Who, float]] = {}
        self._clerks = Clerks("keys")
        self._asked: dict[bytes | str, tuple[asyncio.Task[Key | None], float]] = {}  # with the end of our patience

    async def who(self, authorization: str | None) -> Who:
        """The asker behind an Authorization header. Raises Refused (401)."""
        if authorization is None:
            if await self.is_open():
                return LOCAL
            raise _unauthorized("a key is needed: Authorization: Bearer KEY (`tuneloop keys create` makes one)")
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise _unauthorized("the Authorization header must be: Bearer KEY")
        if not key.strip().startswith(PREFIX) and await self.is_open():
            return LOCAL
        hashed = _hash(key.strip())
        if hashed in self._file:
            return self._file[hashed]
        return await self._look_up(hashed, partial(self._store.keys.verify, key.strip()))

    async def still(self, id: str) -> Who:
        """The asker of an id that was given before, as long as its key is good. Raises Refused (401)."""
        if id == LOCAL.id and await self.is_open():
            return LOCAL
        for who in self._file.values():
            if who.id == id:
                return who
        return await self._look_up(id, partial(self._store.keys.find, id))

    async def is_open(self) -> bool:
        """Whether there still is no key. The first one, made by whatever process, ends it for good."""
        if self.open_to_all and not self._store.trouble and time.monotonic() > self._looked + REMEMBERED:
            try:
                if await self._ask(ANY, self._store.keys.any) is not None:
                    self.open_to_all = False
            except (Refused, StoreError) as error:  # a service that nobody else reaches outlives its database
                LOG.warning("whether there are keys now cannot be looked up: %s", error)
            self._looked = time.monotonic()
        return self.open_to_all

    async def _look_up(self, mark: bytes | str, find: Callable[[], Key | None]) -> Who:
        remembered = self._known.get(mark)
        if remembered is not None and time.monotonic() < remembered[1]:
            return remembered[0]
        self._known.pop(mark, None)
        found = await self._ask(mark, find)
        if found is None:
            raise _unauthorized("this key is not known, or was revoked")
        return Who(found.id, frozenset(found.roles))

    async def _ask(self, mark: bytes | str, find: Callable[[], Key | None]) -> Key | None:
        """Asks the store, once for all who show the same key meanwhile. Raises Refused (503), StoreError."""
        if mark not in self._asked:
            asked = asyncio.ensure_future(self._clerks.ask(find))
            self._asked[mark] = asked, asyncio.get_running_loop().time() + PATIENCE
            asked.add_done_callback(partial(self._answered, mark))
        asked, until = self._asked[mark]
        try:
            async with asyncio.timeout_at(until):
                return await asyncio.shield(asked)
        except TimeoutError:
            raise store_unavailable("keys cannot be checked just now") from None

    def _answered(self, mark: bytes | str, asked: asyncio.Task[Key | None]) -> None:
        if self._asked.get(mark, (None,))[0] is not asked:  # asked before keys were changed
            return
        del self._asked[mark]
        if asked.cancelled() or asked.exception() is not None or (found := asked.result()) is None:
            return
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        self._known[mark] = Who(found.id, frozenset(found.roles)), time.monotonic() + REMEMBERED

    def forget(self) -> None:
        """Keys were changed: all are looked up again."""
        self._known.clear()
        self._asked.clear()

    def close(self) -> None:
        """Ends its threads."""
        self._clerks.close()


def demand(role: str) -> Callable[..., Coroutine[Any, Any, Who]]:
    """The dependency of a route that only askers with this role may use."""

    async def check(request: Request, _key: Bearer) -> Who:
        who: Who = request.scope["who"]
        if role not in who.roles:
            raise Refused(403, f"this key has no role '{role}'", code="missing_role")
        return who

    check.role = role  # type: ignore[attr-defined]  # read by the test that walks all routes
    return check


def _unauthorized(message: str) -> Refused:
    return Refused(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _hash(key: str) -> bytes:
    # only digests are kept and compared: how long a look-up takes says nothing about any key
    return hashlib.sha256(key.encode()).digest()


def _keys(path: Path | None) -> list[str]:
    if path is None:
        return []
    if not path.is_file():
        raise RecipeError(f"serve.key_file: no file '{path}'")
    if path.stat().st_mode & 0o077:
        raise RecipeError(f"serve.key_file: others can read {path}; type: chmod 600 {path}")
    keys = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    if not keys:
        raise RecipeError(f"serve.key_file: {path} holds no key")
    if any(len(key) < SHORTEST_KEY for key in keys):
        raise RecipeError(
            f"serve.key_file: {path} has a key of under {SHORTEST_KEY} characters; `openssl rand -hex 32` makes one"
        )
    return keys
