"""The FastAPI application of a service: its routes behind the front door, its errors, its start and end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tuneloop import __version__
from tuneloop.serve import admin, chat, completions, embeddings, feedback, operations, strict
from tuneloop.serve.errors import Refused
from tuneloop.serve.front import Front, Site
from tuneloop.serve.service import Service

ABOUT = "An OpenAI-compatible service of tuneloop. Fields that are not listed are refused by name, never ignored."


def build(service: Service, site: Site | None = None) -> FastAPI:
    """The application, with pages for people where a site is given. Its lifespan's end closes engine and store."""
    # no pages of documentation: they load scripts from other sites; telemetry and redirects off by name
    app = FastAPI(
        title="tuneloop", version=__version__, description=ABOUT, docs_url=None, redoc_url=None, openapi_url=None,
        redirect_slashes=False, lifespan=partial(_lifespan, site=site),
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )  # fmt: skip
    app.state.service = service
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for room in (chat, completions, feedback, operations, admin, *([embeddings] if service.embedder else [])):
        app.include_router(room.router)
    app.add_middleware(Front, service=service, site=site)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI, site: Site | None) -> AsyncIterator[None]:
    try:
        async with nullcontext() if site is None else site.running():
            yield
    finally:
        await asyncio.to_thread(app.state.service.close)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.response()


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return strict.refusal(error).response()


def _http(request: Request, error: Exception) -> Response:
    """What the framework itself refuses: no such route, another method."""
    assert isinstance(error, HTTPException)
    return Refused(error.status_code, str(error.detail), headers=error.headers).response()


def _document(app: FastAPI) -> dict[str, Any]:
    """OpenAPI, without the refusal in another shape (422) that FastAPI puts in and this service never gives."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        for operations_ in made["paths"].values():
            for operation in operations_.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            made.get("components", {}).get("schemas", {}).pop(name, None)
        app.openapi_schema = made
    return app.openapi_schema
