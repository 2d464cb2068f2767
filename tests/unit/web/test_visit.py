"""Visitors of the page are asked, limited, recorded and refused as the API's clients are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import make, until

from tuneloop.core.conversation import Message
from tuneloop.core.errors import ModelError
from tuneloop.generate.scripted_live import ScriptedLive
from tuneloop.serve.auth import LOCAL, Who
from tuneloop.serve.service import Service
from tuneloop.serve.sessions import Visitor
from tuneloop.web.talk import Denied, Said, Verdict, Wish
from tuneloop.web.visit import Visit

HI = (Message("user", "hi there"),)
WISH = Wish("toy", 64)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Any]:
    services: list[tuple[Service, ScriptedLive]] = []

    def make_one(*arguments: Any, **config: Any) -> tuple[Service, ScriptedLive]:
        services.append(make(tmp_path, *arguments, **config))
        return services[-1]

    yield make_one
    for service, engine in services:
        engine.resume()
        service.close()


def local(service: Service, user: str = "u1") -> Visit:
    return Visit(service, Visitor(LOCAL, user))


async def told(visit: Visit, messages: Any = HI, wish: Wish = WISH) -> list[Said]:
    return [said async for said in visit.answer(messages, wish)]


def denied(visit: Visit, messages: Any = HI, wish: Wish = WISH) -> Denied:
    with pytest.raises(Denied) as caught:
        asyncio.run(told(visit, messages, wish))
    assert not visit._service.under_way
    return caught.value


def test_an_answer_comes_in_pieces_and_is_recorded_with_its_verdict(made: Any) -> None:
    service, _ = made()
    visit = local(service)
    messages = (Message("system", "be brief"), *HI)
    said = asyncio.run(told(visit, messages, Wish("toy", 64, 0.5)))
    assert "".join(one.text for one in said) == "scripted says: hi there"
    (signed,) = {one.answer_id for one in said}
    answer = service.store.answer(service.store.check(signed))
    assert (answer.prompt, answer.answer, answer.finish) == (messages, "scripted says: hi there", "stop")
    assert answer.user == service.store.pseudonym("local/u1")
    for verdict in (Verdict(1), Verdict(-1, "better 更好", "too short")):
        asyncio.run(visit.rate(signed, verdict))
    last = service.store.votes(answer.id)[-1]
    assert (last.thumb, last.corrected, last.comment, last.user) == (-1, "better 更好", "too short", answer.user)


def test_an_answer_at_the_limit_says_so(made: Any) -> None:
    service, _ = made(lambda ask: "one two three four")
    said = asyncio.run(told(local(service), HI, Wish("toy", 2)))
    assert "".join(one.text for one in said) == "one two" and said[-1].cut


def test_closing_gives_the_answer_up_and_keeps_what_there_was(made: Any) -> None:
    service, engine = made(lambda ask: "one two three")

    async def begin_and_leave() -> str:
        engine.pause(after=1)
        pieces = local(service).answer(HI, WISH)
        said = await anext(pieces)
        await pieces.aclose()
        return said.answer_id

    signed = asyncio.run(begin_and_leave())
    until(lambda: engine.cancelled)
    answer = service.store.answer(service.store.check(signed))
    assert (answer.answer, answer.finish) == ("one", "cancelled")
    assert not service.under_way


@pytest.mark.parametrize(
    ("wish", "messages", "reason"),
    [
        (Wish("other", 64), HI, "model"), (Wish("toy", 100_000), HI, "asked"), (Wish("toy", 64, 9.0), HI, "asked"),
        (Wish("toy", {}), HI, "asked"), (Wish(None, 64), HI, "asked"), (Wish("toy", 64, "hot"), HI, "asked"),  # type: ignore[arg-type]
        (WISH, HI * 300, "asked"), (WISH, (Message("user", "x" * (1 << 20)),) * 2, "asked"),
    ],
)  # fmt: skip
def test_what_the_api_refuses_is_refused(made: Any, wish: Wish, messages: Any, reason: str) -> None:
    service, engine = made()
    caught = denied(local(service), messages, wish)
    assert caught.reason == reason and bool(caught.detail) == (reason == "asked")
    assert engine.asked == []


def test_faults_and_refusals_of_the_engine_have_reasons(made: Any) -> None:
    def answer(ask: Any) -> str:
        raise ModelError("the prompt has 9 tokens, the model reads 8")

    service, _ = made(answer)
    assert denied(local(service)).detail == "the prompt has 9 tokens, the model reads 8"
    service.draining = True
    assert denied(local(service)).reason == "closed"


def test_a_full_queue_and_rates_hold_for_the_page(made: Any) -> None:
    service, engine = made(queue=1, places=1, limits={"requests_per_minute": 3, "feedback_per_minute": 1})
    engine.pause()

    async def three() -> Denied:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(told(local(service))) for _ in range(1)]
            await asyncio.to_thread(until, lambda: engine.now().waiting)
            with pytest.raises(Denied) as caught:
                await told(local(service))
            engine.resume()
        assert tasks[0].result()
        return caught.value

    assert asyncio.run(three()).reason == "busy"
    (signed,) = {one.answer_id for one in asyncio.run(told(local(service)))}
    assert denied(local(service)).reason == "busy"
    asyncio.run(local(service).rate(signed, Verdict(1)))
    with pytest.raises(Denied, match="busy"):
        asyncio.run(local(service).rate(signed, Verdict(1)))


def test_roles_hold_and_a_revoked_key_ends_an_open_page(made: Any) -> None:
    service, _ = made(open_to_all=False)
    key = service.store.keys.verify(service.store.keys.create("ann", ["chat"]))
    visit = Visit(service, Visitor(Who(key.id, frozenset(key.roles)), None))
    assert (visit.named, visit.rates) == (True, False)
    (signed,) = {one.answer_id for one in asyncio.run(told(visit))}
    answer = service.store.answer(service.store.check(signed))
    assert answer.user == service.store.pseudonym(key.id)
    with pytest.raises(Denied, match="role"):
        asyncio.run(visit.rate(signed, Verdict(1)))
    service.store.keys.revoke(key.id)
    service.doorkeeper.forget()
    assert denied(visit).reason == "session"
    assert denied(local(service)).reason == "session"  # the door that was open is closed now


def test_forged_and_unknown_answers_cannot_be_rated(made: Any) -> None:
    service, _ = made()
    with pytest.raises(Denied, match="signed id"):
        asyncio.run(local(service).rate("x", Verdict(1)))
    with pytest.raises(Denied, match="gone"):
        asyncio.run(local(service).rate(service.store.sign("0" * 32), Verdict(1)))
