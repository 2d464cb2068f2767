"""What a client is told when it is refused: OpenAI's error shape, with the field's name where a field is at fault."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

KINDS = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 408: "timeout_error",
    429: "rate_limit_error", 500: "server_error", 503: "server_error", 504: "timeout_error",
}  # fmt: skip
"""Kinds of errors by status; any other status of 400 and above is an invalid request."""


class ErrorDetail(BaseModel):
    """What was wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every refusal."""

    error: ErrorDetail


class Refused(HTTPException):
    """A request that is not answered, with what the client is told. An HTTPException, which FastAPI lets pass."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers=dict(headers or {}))
        self.param, self.code = param, code

    def body(self) -> dict[str, Any]:
        """OpenAI's shape, for a response or an event of a stream."""
        kind = KINDS.get(self.status_code, "invalid_request_error")
        return {"error": {"message": self.detail, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status_code, self.headers)


def busy(message: str, retry_after: float) -> Refused:
    """429: come again in so many seconds."""
    return Refused(429, message, code="rate_limit_exceeded", headers={"Retry-After": str(max(1, round(retry_after)))})


def stopping() -> Refused:
    """503: this process is about to end."""
    return Refused(503, "the service is shutting down; try again", code="shutting_down", headers={"Retry-After": "5"})


def slow() -> Refused:
    """408: pieces of the answer waited, more and more of them."""
    return Refused(408, "the answer was not read as fast as it was written, and was given up", code="slow")


def away() -> Refused:
    """503: the server behind this one does not answer."""
    return Refused(503, "the model's server is away; try again", code="engine_away", headers={"Retry-After": "2"})


def store_unavailable(message: str) -> Refused:
    """503: the database does not take anything."""
    return Refused(503, message, code="store_unavailable", headers={"Retry-After": "5"})


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for its OpenAPI document; any may get 400, in plain words, for what is not HTTP."""
    return {
        status: {"model": ErrorBody, "description": KINDS.get(status, "invalid_request_error")}
        for status in {400, *statuses}
    }
