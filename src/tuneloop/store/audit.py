"""The audit log: entries that only grow in number, each sealed together with the one before it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select, update

from tuneloop.core import jsonl
from tuneloop.core.conversation import JsonObject
from tuneloop.store.access import reading
from tuneloop.store.seal import Seal
from tuneloop.store.tables import AUDIT, AUDIT_HEAD

_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Entry:
    """Who did what. `number` counts from 1 without gaps."""

    number: int
    time: datetime
    actor: str
    action: str
    detail: JsonObject
    mac: str


@dataclass(frozen=True, slots=True)
class Broken:
    """The first entry that is not as it was written, or is missing."""

    number: int
    why: str


def begin(connection: Connection, seal: Seal) -> None:
    """The log of a new database."""
    connection.execute(insert(AUDIT_HEAD), {"one": 1, "number": 0, "mac": "", "seal": _head_seal(seal, 0, "")})


def append(connection: Connection, seal: Seal, actor: str, action: str, detail: JsonObject) -> Entry:
    """Adds an entry in the caller's transaction. Others who append wait for its end: the head's row is locked."""
    last, before = connection.execute(select(AUDIT_HEAD.c.number, AUDIT_HEAD.c.mac).with_for_update()).one()
    number, time, text = last + 1, datetime.now(UTC), _canonical(detail)
    mac = _entry_mac(seal, before, number, time, actor, action, text)
    row = {"number": number, "time": time, "actor": actor, "action": action, "detail": text, "mac": mac}
    connection.execute(insert(AUDIT), row)
    connection.execute(update(AUDIT_HEAD).values(number=number, mac=mac, seal=_head_seal(seal, number, mac)))
    return Entry(number, time, actor, action, jsonl.parse(text), mac)


def count(connection: Connection) -> int:
    """How many entries there are, by the log's head."""
    return connection.execute(select(AUDIT_HEAD.c.number)).scalar() or 0


def entries(engine: Engine, after: int = 0) -> Iterator[Entry]:
    """All entries behind a number, in order."""
    for row in _rows(engine, after):
        yield Entry(row.number, row.time, row.actor, row.action, jsonl.parse(row.detail), row.mac)


def verify(engine: Engine, seal: Seal) -> Broken | None:
    """The first entry that was changed, put in or taken out, the last ones too; None where all is as it was written.

    Not seen: a whole database put back to an older state. Keep a number and mac elsewhere to see that, too.
    """
    with reading(engine) as connection:  # before the entries: others may be appending
        head = connection.execute(select(AUDIT_HEAD)).one_or_none()
    before, number = "", 0
    for entry in _rows(engine, 0):
        number += 1
        if entry.number != number:
            return Broken(number, f"entry {number} is missing")
        if entry.mac != _entry_mac(seal, before, number, entry.time, entry.actor, entry.action, entry.detail):
            return Broken(number, f"entry {number} is not as it was written, or what stood before it was another")
        if head is not None and number == head.number and entry.mac != head.mac:
            return Broken(number, f"entry {number} is not the one that was last when it was written")
        before = entry.mac
    if head is None or head.seal != _head_seal(seal, head.number, head.mac):
        return Broken(number + 1, "what says how many entries there are was changed or taken out")
    if number < head.number:
        return Broken(number + 1, f"entry {number + 1} is missing, and all behind it")
    return None


def _rows(engine: Engine, after: int) -> Iterator[Row[Any]]:
    """A page at a time: no long transaction, little memory."""
    while True:
        page = select(AUDIT).where(AUDIT.c.number > after).order_by(AUDIT.c.number).limit(_PAGE)
        with reading(engine) as connection:
            rows = connection.execute(page).all()
        yield from rows
        if len(rows) < _PAGE:
            return
        after = rows[-1].number


def _entry_mac(seal: Seal, before: str, number: int, time: datetime, actor: str, action: str, detail: str) -> str:
    said = {"before": before, "number": number, "time": time.isoformat(), "actor": actor, "action": action}
    return seal.mac("audit", _canonical({**said, "detail": detail}))


def _head_seal(seal: Seal, number: int, mac: str) -> str:
    return seal.mac("audit", f"head {number} {mac}")


def _canonical(value: Any) -> str:
    """The one text of a JSON value. Raises TypeError or ValueError for what is none."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
