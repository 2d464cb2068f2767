"""How requests are read: JSON only, of limited depth, and errors that name the field; nothing is ignored."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from tuneloop.serve.errors import Refused
from tuneloop.serve.limits import parse


class Strict(BaseModel):
    """Base of all that clients send: no unknown fields, no types changed, no values in error messages or logs."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True, use_attribute_docstrings=True)


class _Request(Request):
    async def json(self) -> Any:
        return parse(await self.body(), self.app.state.service.config.limits.depth)


class StrictRoute(APIRoute):
    """A route whose body is read by `parse`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_Request(request.scope, request.receive))

        return strictly


def refusal(error: RequestValidationError) -> Refused:
    """The first fault of a request in OpenAI's words: 400 (415 for a body that is not said to be JSON)."""
    body = error.body
    if isinstance(body, (bytes, str)):
        return Refused(415, "send JSON, with the header Content-Type: application/json", code="not_json")
    # of a union's alternatives the one that got furthest was meant; an unknown field tells more than a missing one
    problem = max(error.errors(), key=lambda one: (len(one["loc"]), one["type"] == "extra_forbidden"))
    where, *loc = problem["loc"]
    field = _path(body, loc) if where == "body" else str(loc[-1] if loc else where)
    name = field or "body"
    if problem["type"] == "extra_forbidden":
        return Refused(400, f"'{name}' is unknown or not supported here", param=name, code="unsupported_field")
    if problem["type"] == "missing":
        return Refused(400, f"'{name}' is required", param=name, code="missing_field")
    message = str(problem["msg"]).removeprefix("Value error, ")
    return Refused(400, f"'{name}': {message}", param=name, code="invalid_value")


def _path(value: Any, loc: Sequence[int | str]) -> str:
    """`messages[0].content`: the place in the request, without the names of alternatives that pydantic puts in."""
    path = ""
    for number, part in enumerate(loc):
        if isinstance(part, int) and isinstance(value, list) and part < len(value):
            path, value = f"{path}[{part}]", value[part]
        elif isinstance(part, str) and isinstance(value, dict) and (part in value or number == len(loc) - 1):
            path, value = f"{path}.{part}" if path else part, value.get(part)
    return path
