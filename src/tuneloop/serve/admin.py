"""/admin: adapters and keys, for keys with the role admin alone. Every change stands in the audit log."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from pydantic import Field, StringConstraints
from starlette.responses import Response

from tuneloop.core.errors import TuneloopError
from tuneloop.serve.adapters import UnknownModel, adapter_of
from tuneloop.serve.auth import Who, demand
from tuneloop.serve.errors import Refused, documented, stopping
from tuneloop.serve.responses import Told
from tuneloop.serve.service import Here, Service
from tuneloop.serve.strict import Strict, StrictRoute
from tuneloop.store.records import Key, Role

router = APIRouter(prefix="/admin", route_class=StrictRoute)
Admin = Annotated[Who, Depends(demand("admin"))]
REFUSALS = documented(400, 401, 403, 404, 408, 413, 415, 421, 429, 500, 503)


class AdapterRequest(Strict):
    """A public name and the finished tune run that it shall stand for."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    run: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    """Id of a run (its folder's name), never a path."""


class AdapterBody(Told):
    """A public name and what it stands for."""

    name: str
    digest: str


class AdapterList(Told):
    """All public names."""

    data: list[AdapterBody]


class KeyRequest(Strict):
    """A key to be made."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    roles: Annotated[list[Role], Field(min_length=1)]


class KeyBody(Told):
    """A key, without what is secret of it; `key` is told once, when it is made."""

    id: str
    name: str
    roles: list[str]
    revoked: bool
    key: str | None = None


class KeyList(Told):
    """All keys, the revoked ones too."""

    data: list[KeyBody]


class Done(Told):
    """It was done."""

    done: Literal[True]


@router.get("/adapters", responses={200: {"model": AdapterList}, **REFUSALS}, summary="Public names")
async def adapters(service: Here, who: Admin) -> Response:
    """The names that clients can ask for, and the digests behind them."""
    listed = [AdapterBody(name=name, digest=served.digest) for name, served in service.roster.listed().items()]
    return _json(AdapterList(data=listed))


@router.post("/adapters", responses={200: {"model": AdapterBody}, **REFUSALS}, summary="Serve an adapter")
async def put_adapter(body: AdapterRequest, service: Here, who: Admin) -> Response:
    """Lets a name stand for a run's adapter, from one answer to the next; ends when the old one is gone."""
    if service.draining:
        raise stopping()
    if service.runs is None:
        raise Refused(400, "this service was started without a folder of runs", code="no_runs")
    try:
        folder = adapter_of(service.runs, body.run)
        served = await asyncio.to_thread(service.roster.put, body.name, folder)
    except TuneloopError as error:
        if service.draining:
            raise stopping() from None
        raise Refused(400, str(error), code="adapter_refused") from None
    detail = {"name": body.name, "run": body.run, "digest": served.digest}
    await _audit(service, who, "adapter.put", {**detail, "facts": dict(served.facts)} if served.facts else detail)
    return _json(AdapterBody(name=body.name, digest=served.digest))


@router.delete("/adapters/{name:path}", responses={200: {"model": Done}, **REFUSALS}, summary="Take a name away")
async def remove_adapter(name: str, service: Here, who: Admin) -> Response:
    """Answers under way end first."""
    try:
        await asyncio.to_thread(service.roster.remove, name)
    except UnknownModel:
        raise Refused(404, f"no model '{name[:80]}' here", code="model_not_found") from None
    except TuneloopError as error:
        raise Refused(400, str(error), code="adapter_refused") from None
    await _audit(service, who, "adapter.remove", {"name": name})
    return _json(Done(done=True))


@router.get("/keys", responses={200: {"model": KeyList}, **REFUSALS}, summary="All keys")
async def keys(service: Here, who: Admin) -> Response:
    """Without what is secret of them: only hashes are kept."""
    found = await service.clerks.ask(service.store.keys.list)
    return _json(KeyList(data=[_key(key) for key in found]))


@router.post("/keys", responses={200: {"model": KeyBody}, **REFUSALS}, summary="Make a key")
async def create_key(body: KeyRequest, service: Here, who: Admin) -> Response:
    """The answer is the only place where the key can be read."""
    if not body.name.isprintable():
        raise Refused(400, "'name' has characters that cannot be shown", param="name", code="invalid_value")
    secret = await service.clerks.ask(partial(service.store.keys.create, body.name, body.roles, actor=who.id))
    made = await service.clerks.ask(partial(service.store.keys.verify, secret))
    assert made is not None
    service.doorkeeper.open_to_all = False  # whoever makes keys wants to know who asks
    return _json(_key(made, secret))


@router.delete("/keys/{id}", responses={200: {"model": Done}, **REFUSALS}, summary="Revoke a key")
async def revoke_key(id: str, service: Here, who: Admin) -> Response:
    """For good, and at once."""
    known = await service.clerks.ask(service.store.keys.list)
    if all(key.id != id for key in known):
        raise Refused(404, f"no key '{id[:80]}'", code="key_not_found")
    await service.clerks.ask(partial(service.store.keys.revoke, id, actor=who.id))
    service.doorkeeper.forget()
    return _json(Done(done=True))


def _key(key: Key, secret: str | None = None) -> KeyBody:
    body = KeyBody(id=key.id, name=key.name, roles=list(key.roles), revoked=key.revoked is not None)
    if secret is not None:
        body.key = secret
    return body


async def _audit(service: Service, who: Who, action: str, detail: dict[str, Any]) -> None:
    await service.clerks.ask(partial(service.store.audit, f"key:{who.id}", action, detail))


def _json(body: Told) -> Response:
    return Response(body.json_bytes(), media_type="application/json")
