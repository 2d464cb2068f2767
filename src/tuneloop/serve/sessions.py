"""Who sits at a browser: a signed cookie names a key and a session. The server keeps no list; a revoked key ends all
sessions that it began."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from tuneloop.serve.auth import LOCAL, Doorkeeper, Who
from tuneloop.serve.errors import Refused
from tuneloop.store.store import Store

COOKIE = "tuneloop"
LASTS = 7 * 24 * 3600  # seconds


@dataclass(frozen=True)
class Visitor:
    """Somebody at a browser. `user`: of several who need no key, which one; None where the key tells."""

    who: Who
    user: str | None


class Sessions:
    """Makes and reads the cookies of one service."""

    def __init__(self, store: Store, doorkeeper: Doorkeeper) -> None:
        self._store, self._doorkeeper = store, doorkeeper

    def begin(self, who: Who) -> tuple[Visitor, str]:
        """A new session of an asker, and its cookie's value."""
        id = secrets.token_urlsafe(16)
        value = self._store.sign_session(f"{who.id}.{id}.{int(time.time()) + LASTS}")
        return Visitor(who, id if who == LOCAL else None), value

    def header(self, value: str, *, secure: bool) -> str:
        """A Set-Cookie header: no script reads it, no other site's request carries it. An empty value ends it."""
        lasts = LASTS if value else 0
        return f"{COOKIE}={value}; Path=/; Max-Age={lasts}; HttpOnly; SameSite=Strict{'; Secure' if secure else ''}"

    async def visitor(self, cookies: str) -> Visitor:
        """Who a Cookie header tells of. Raises Refused (401) where it tells of none whose key is good for chatting."""
        session = self._store.check_session(cookies_of(cookies).get(COOKIE, ""))
        key, id, until = session.split(".") if session is not None else ("", "", "0")
        if int(until) < time.time():
            await self._doorkeeper.is_open()  # the door asks that next, of what is known
            raise Refused(401, "no session: log in", code="no_session")
        who = await self._doorkeeper.still(key)
        if "chat" not in who.roles:
            raise Refused(403, "this key has no role 'chat'", code="missing_role")
        return Visitor(who, id if who == LOCAL else None)


def cookies_of(header: str) -> dict[str, str]:
    """The cookies of a Cookie header that are ours by their name; the first of a name counts. None of them is quoted.

    Not by http.cookies: one header of 60 kB full of backslashes held all of the service up for 8 s (CVE-2024-7592).
    """
    found: dict[str, str] = {}
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if name.startswith(COOKIE):
            found.setdefault(name, value)
    return found
