"""What operators and their tools ask: is it alive, is it ready, its figures, its models, its document."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from tuneloop.serve import responses as told
from tuneloop.serve.auth import demand
from tuneloop.serve.errors import ErrorBody, Refused, documented
from tuneloop.serve.service import Here, Service

router = APIRouter()
FIGURES = "text/plain; version=0.0.4; charset=utf-8"
STATE: dict[int | str, dict[str, Any]] = {
    200: {"model": told.State},
    503: {"model": told.State},
    421: {"model": ErrorBody},
}


@router.get("/health", responses=STATE, summary="Whether the process lives")
async def health(service: Here) -> Response:
    """503 means: start it anew."""
    return _state("fault" if service.engine.now().fault else "ok")


@router.get("/ready", responses=STATE, summary="Whether to send requests here")
async def ready(service: Here) -> Response:
    """503 means: ask another instance; it does not mean that anything is broken."""
    now = service.engine.now()
    return _state("draining" if service.draining else "fault" if now.fault else "away" if now.away else "ok")


@router.get(
    "/metrics",
    dependencies=[Depends(demand("watch"))],
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **documented(401, 403, 421, 503)},
    response_class=Response,
    summary="Figures for Prometheus",
)
async def metrics(service: Here) -> Response:
    """Prometheus' text format, version 0.0.4."""
    return Response(service.meters.text(), media_type=FIGURES)


@router.get(
    "/v1/models",
    dependencies=[Depends(demand("chat"))],
    responses={200: {"model": told.ModelList}, **documented(401, 403, 421, 503)},
    summary="The models that can be asked",
)
async def models(service: Here) -> Response:
    """The model itself first, then its adapters."""
    return _json(told.ModelList(object="list", data=_listed(service)))


@router.get(
    "/v1/models/{model:path}",
    dependencies=[Depends(demand("chat"))],
    responses={200: {"model": told.ModelBody}, **documented(401, 403, 404, 421, 503)},
    summary="One of them",
)
async def model(model: str, service: Here) -> Response:
    """By its public name."""
    found = [one for one in _listed(service) if one.id == model]
    if not found:
        raise Refused(404, f"no model '{model[:80]}' here", param="model", code="model_not_found")
    return _json(found[0])


@router.get("/openapi.json", dependencies=[Depends(demand("chat"))], include_in_schema=False)
async def document(request: Request) -> Response:
    """This service's OpenAPI document. There is no page that shows it: those load scripts from other places."""
    return JSONResponse(request.app.openapi())


def _listed(service: Service) -> list[told.ModelBody]:
    return [
        told.ModelBody(
            id=name, object="model", created=service.started, owned_by="tuneloop", digest=served.digest,
            context=served.context,
        )
        for name, served in service.roster.listed().items()
    ]  # fmt: skip


def _state(status: str) -> Response:
    return JSONResponse({"status": status}, 200 if status == "ok" else 503)


def _json(body: told.Told) -> Response:
    return Response(body.json_bytes(), media_type="application/json")
