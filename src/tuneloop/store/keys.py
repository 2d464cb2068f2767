"""API keys: made once, shown once, kept as a seal that says nothing of them."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import Connection, Engine, Row, insert, or_, select, update

from tuneloop.core.errors import StoreError
from tuneloop.core.plugins import did_you_mean
from tuneloop.store import audit
from tuneloop.store.access import reading
from tuneloop.store.records import ROLES, Key, Role, check_time
from tuneloop.store.seal import Seal
from tuneloop.store.tables import KEYS
from tuneloop.store.writer import Writer

_SHAPE = re.compile(r"tl-([0-9a-f]{8})-[0-9A-Za-z_\-]{43}")
"""Its id, by which it is listed and revoked, and 256 random bits."""
_USED_EVERY = 60.0  # seconds between two writes of when keys were used


class Keys:
    """The keys of a store. Every check reads the database, so that a revoked key fails at once in all processes."""

    def __init__(self, engine: Engine, seal: Seal, writer: Writer[Any]) -> None:
        self._engine, self._seal, self._writer = engine, seal, writer
        self._used: dict[str, datetime] = {}
        self._written = time.monotonic()
        self._lock = threading.Lock()

    def create(self, name: str, roles: Sequence[Role], expires: datetime | None = None, actor: str = "operator") -> str:
        """A new key as text, which is never to be had again: `tl-<id>-<secret>`. Raises StoreError."""
        for role in roles:
            if role not in ROLES:
                raise StoreError(f"no role '{role}'{did_you_mean(role, ROLES)}; roles: {', '.join(ROLES)}")
        if not roles:
            raise StoreError(f"a key without a role is good for nothing; roles: {', '.join(ROLES)}")
        if not (0 < len(name) <= 100 and name.isprintable()):
            raise StoreError("a key's name has 1 to 100 printable characters: it says whose key it is")
        if expires is not None:
            check_time(expires)
        id = secrets.token_hex(4)
        key = f"tl-{id}-{secrets.token_urlsafe(32)}"
        sorted_roles = sorted(set(roles), key=ROLES.index)
        row = {"id": id, "name": name, "roles": " ".join(sorted_roles), "mac": self._seal.mac("key", key)}
        row |= {"created": datetime.now(UTC), "expires": expires}
        detail = {"id": id, "name": name, "roles": sorted_roles, "expires": expires and expires.isoformat()}

        def write(connection: Connection) -> None:
            connection.execute(insert(KEYS), row)
            audit.append(connection, self._seal, actor, "create key", detail)

        self._writer.do(write)
        return key

    def verify(self, key: str) -> Key | None:
        """The key of a text, if it is one of ours, not revoked and not expired."""
        shape = _SHAPE.fullmatch(key)
        if shape is None:
            return None
        with reading(self._engine) as connection:
            row = connection.execute(select(KEYS).where(KEYS.c.id == shape[1])).one_or_none()
        # compared where there is no such id, too: the time it takes does not tell which ids there are
        if not self._seal.matches(row.mac if row is not None else "0" * 64, "key", key) or row is None:
            return None
        return self._good(row)

    def find(self, id: str) -> Key | None:
        """The key of an id, if it is not revoked and not expired: for those who showed it before (a session)."""
        with reading(self._engine) as connection:
            row = connection.execute(select(KEYS).where(KEYS.c.id == id)).one_or_none()
        return None if row is None else self._good(row)

    def revoke(self, id: str, actor: str = "operator") -> None:
        """Makes a key good for nothing from now on. Raises StoreError where there is none of that id."""
        gone = update(KEYS).where(KEYS.c.id == id, KEYS.c.revoked.is_(None)).values(revoked=datetime.now(UTC))

        def write(connection: Connection) -> None:
            if connection.execute(gone).rowcount:
                audit.append(connection, self._seal, actor, "revoke key", {"id": id})
            elif connection.execute(select(KEYS.c.id).where(KEYS.c.id == id)).one_or_none() is None:
                raise StoreError(f"no key '{id}': its id is what stands between `tl-` and the next hyphen")

        self._writer.do(write)

    def list(self) -> Sequence[Key]:
        """All keys, the oldest first, revoked and expired ones too."""
        with reading(self._engine) as connection:
            return [_key_of(row) for row in connection.execute(select(KEYS).order_by(KEYS.c.created, KEYS.c.id))]

    def any(self) -> Key | None:
        """One that is good; None where there is none."""
        now = datetime.now(UTC)
        good = select(KEYS).where(KEYS.c.revoked.is_(None), or_(KEYS.c.expires.is_(None), KEYS.c.expires > now))
        with reading(self._engine) as connection:
            row = connection.execute(good.limit(1)).one_or_none()
        return None if row is None else _key_of(row)

    def write_uses(self) -> None:
        """Sees to it that the last uses are written; returns at once."""
        with self._lock:
            used, self._used, self._written = self._used, {}, time.monotonic()
        if used:
            self._writer.post(lambda connection: _write_uses(connection, used))

    def _good(self, row: Row[Any]) -> Key | None:
        found, now = _key_of(row), datetime.now(UTC)
        if found.revoked is not None or (found.expires is not None and found.expires <= now):
            return None
        self._note_use(found.id, now)
        return found

    def _note_use(self, id: str, now: datetime) -> None:
        """Remembers a use. One write a minute tells of all of them: a key is used with each request."""
        with self._lock:
            self._used[id] = now
            due = time.monotonic() - self._written > _USED_EVERY
        if due:
            self.write_uses()


def _write_uses(connection: Connection, used: dict[str, datetime]) -> None:
    for id, when in used.items():
        later = or_(KEYS.c.used.is_(None), KEYS.c.used < when)
        connection.execute(update(KEYS).where(KEYS.c.id == id, later).values(used=when))


def _key_of(row: Row[Any]) -> Key:
    roles = cast("tuple[Role, ...]", tuple(row.roles.split()))
    return Key(row.id, row.name, roles, row.created, row.expires, row.revoked, row.used)
