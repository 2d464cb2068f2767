"""An answer that is over becomes an Interaction of the store: what was asked and said, by what, for whom, how fast."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tuneloop.core import digest
from tuneloop.store.records import Interaction

if TYPE_CHECKING:
    from tuneloop.serve.answering import Answer, Answering


def record(answering: Answering, answer: Answer) -> None:
    """Has the answer written; nobody waits for it. The store masks texts before it writes."""
    ask, served, store = answer.ask, answering.served, answering.service.store
    text, calls = answer.said
    schema = None if ask.schema is None else json.dumps(ask.schema)  # the order of its keys is that of the answer's
    decoding = {**asdict(ask.decoding), "seed": ask.request.seed, "stop": ask.stop, "schema": schema}
    answering.service.record(
        Interaction(
            id=answer.id,
            time=datetime.now(UTC) - timedelta(seconds=answer.seconds),
            user=store.pseudonym(user_of(answering.who.id, answering.user)),
            model=answering.model,
            prompt=ask.request.messages,
            answer=text,
            finish=answer.finish or "cancelled",
            calls=calls,
            tools=ask.request.tools,
            version=served.digest,
            adapter=served.adapter,
            decoding=digest.of_value(decoding),
            first_ms=None if answer.first is None else answer.first * 1000,
            total_ms=answer.seconds * 1000,
            prompt_tokens=answer.usage.prompt,
            cached_tokens=answer.usage.cached,
            completion_tokens=answer.usage.completion,
        )
    )


def user_of(key: str, user: str | None) -> str:
    """Who is meant: users of different keys are different people, whatever they are called."""
    return f"{key}/{user}" if user else key
