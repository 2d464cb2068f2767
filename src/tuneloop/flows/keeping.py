"""A service's store from the command line: what is in it, what leaves it, whether its log is whole."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.text import Text
from sqlalchemy import make_url

from tuneloop.core.errors import StoreError
from tuneloop.serve.config import ServeConfig
from tuneloop.serve.recording import user_of
from tuneloop.store import seal
from tuneloop.store import store as stores
from tuneloop.store.database import shown
from tuneloop.store.store import Store
from tuneloop.track import console

_AGE = re.compile(r"(\d{1,6})(h|d|w)")
_HOURS = {"h": 1, "d": 24, "w": 168}


def stats(config: ServeConfig) -> dict[str, Any]:
    """How much there is, and from when."""
    with _opened(config) as kept:
        found = kept.stats()
    console.say(Text(f"{found.answers:,} answers to {found.users:,} users, {found.votes:,} votes"))
    if found.oldest is not None and found.newest is not None:
        console.say(f"from {found.oldest:%Y-%m-%d %H:%M} to {found.newest:%Y-%m-%d %H:%M} (UTC)")
    console.say(f"{found.keys:,} keys, {found.entries:,} entries of the audit log")
    times = {name: moment and moment.isoformat() for name, moment in (("from", found.oldest), ("to", found.newest))}
    counts = {"answers": found.answers, "users": found.users, "votes": found.votes, "keys": found.keys}
    return {**counts, "entries": found.entries, **times}


def export(config: ServeConfig, path: Path, since: str | None, before: str | None) -> dict[str, Any]:
    """Writes answers with their votes as Examples."""
    with _opened(config) as kept:
        first, last = (None if when is None else moment(when) for when in (since, before))
        count = kept.export(path, first, last)
    console.say(Text(f"{count:,} answers written to {path}, which its owner alone may read"))
    return {"file": str(path), "answers": count}


def expire(config: ServeConfig, older_than: str, really: bool) -> dict[str, Any]:
    """Deletes all answers that are older, with their votes; only says how many unless `really`."""
    before = moment(older_than)
    with _opened(config) as kept:
        count = kept.expire(before) if really else kept.older(before)
    verb = "deleted" if really else "would delete"
    console.say(f"{verb} {count:,} answers from before {before:%Y-%m-%d %H:%M} (UTC), with their votes")
    _advise(really)
    return {"answers": count, "before": before.isoformat(), "deleted": really}


def delete_user(config: ServeConfig, user: str | None, key: str, really: bool) -> dict[str, Any]:
    """Deletes what there is of a user of a key; only says how much unless `really`."""
    with _opened(config) as kept:
        known = kept.pseudonym(user_of(key, user))
        if really:
            gone = kept.delete_user(known)
            answers, votes = len(gone.answers), gone.votes
        else:
            answers, votes = kept.of_user(known)
    who = f"'{user}' of key {key}" if user else f"key {key} without a user's name"
    console.say(
        Text(f"{who} ({known}): {'deleted' if really else 'would delete'} {answers:,} answers, {votes:,} votes")
    )
    _advise(really)
    return {"user": known, "answers": answers, "votes": votes, "deleted": really}


def verify(config: ServeConfig) -> dict[str, Any]:
    """Whether the audit log is as it was written."""
    with _opened(config) as kept:
        broken, entries = kept.verify_audit(), kept.stats().entries
    if broken is None:
        console.say(f"the audit log is whole: {entries:,} entries")
        return {"whole": True, "entries": entries}
    console.say(Text(f"the audit log is broken: {broken.why}", style="red"))
    return {"whole": False, "entries": entries, "number": broken.number, "why": broken.why}


def moment(text: str) -> datetime:
    """The time that an age (`90d`, `12h`, `8w`) or a date says, a date without zone in UTC. Raises StoreError."""
    age = _AGE.fullmatch(text)
    if age is not None:
        return datetime.now(UTC) - timedelta(hours=int(age[1]) * _HOURS[age[2]])
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise StoreError(f"'{text}' is no time: write an age such as 90d, 12h or 8w, or a date: 2026-11-22") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


@contextmanager
def _opened(config: ServeConfig) -> Generator[Store]:
    """The store of a service that has run; a new one is not made by mistake."""
    url = make_url(config.store)
    missing = url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file()
    if missing or not config.secret_file.exists():
        what = shown(url) if missing else f"secret {config.secret_file}"
        raise StoreError(
            f"no {what} here: run this where the service runs, or name both: "
            "--set serve.store=sqlite:///… --set serve.secret_file=…"
        )
    with stores.open(config.store, seal.load(config.secret_file)) as kept:
        yield kept


def _advise(really: bool) -> None:
    if not really:
        console.say("nothing was deleted; --yes deletes")
