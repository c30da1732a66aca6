"""One contract for whatever goes wrong: a status, a code, a sentence, a hint, and the field it is about.

The same `ErrorResponse` is spelled as each API's clients expect it. Knows no jobs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from ..errors import DiffusekitError, Overloaded
from ..settings import GenerateSettings
from .jobs.job import Failure

_STATUS = {1: 500, 2: 422, 3: 415, 4: 422, 5: 500, 6: 413, 7: 503, 8: 503, 9: 429}
_FIELDS = {*GenerateSettings.model_fields, "prompts", "kind", "size"}
_SPELLED = {
    "/sdapi/": {
        "guidance_scale": "cfg_scale",
        "sampler": "sampler_name",
        "images": "batch_size",
        "model": "override_settings",
    },
    "/v1/": {"steps": "num_inference_steps", "images": "n", "width": "size", "height": "size"},
}


@dataclass(frozen=True)
class ErrorResponse:
    """Something that went wrong, for an HTTP client. `code` is the command line's exit code."""

    status: int
    message: str
    hint: str = ""
    code: int = 2
    field: str = ""
    retry_after: int | None = None

    @classmethod
    def from_error(cls, error: DiffusekitError | Failure) -> ErrorResponse:
        code = error.code if isinstance(error, Failure) else error.exit_code
        first = error.message.partition(" ")[0]
        return cls(
            status=getattr(error, "status", _STATUS.get(code, 500)),
            message=error.message,
            hint=error.hint,
            code=code,
            field=first if code == 2 and first in _FIELDS else "",
            retry_after=error.retry_after if isinstance(error, Overloaded) else None,
        )


def error_body(fault: ErrorResponse, path: str) -> dict[str, Any]:
    """A fault as the clients of a path read it."""
    for prefix, names in _SPELLED.items():
        if path.startswith(prefix):
            fault = replace(fault, field=names.get(fault.field, fault.field))
    if path.startswith("/v1/"):
        kind = "invalid_request_error" if fault.status < 429 else "server_error"
        said = f"{fault.message}; {fault.hint}" if fault.hint else fault.message
        error = {"message": said, "type": kind, "param": fault.field or None}
        return {"error": error | {"code": _openai_code(fault)}}
    if path.startswith("/sdapi/"):
        said = f"{fault.message}; {fault.hint}" if fault.hint else fault.message
        return {"detail": said, "field": fault.field, "code": fault.code}
    shown = {"code": fault.code, "message": fault.message, "hint": fault.hint, "field": fault.field}
    return {"error": shown}


def _openai_code(fault: ErrorResponse) -> str | None:
    known = {401: "invalid_api_key", 429: "queue_full", 503: "unavailable"}
    return "model_not_found" if fault.field == "model" else known.get(fault.status)


def error_response(fault: ErrorResponse, path: str) -> Response:
    headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after else {}
    if fault.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="diffusekit", charset="UTF-8"'
    text = json.dumps(error_body(fault, path))
    return Response(text, fault.status, headers, "application/json")


def add_handlers(app: FastAPI) -> None:
    """Let every error of an app be answered here."""

    async def known(request: Request, error: Exception) -> Response:
        assert isinstance(error, DiffusekitError)
        return error_response(ErrorResponse.from_error(error), _path(request))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        path = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
        field = "" if first["type"] == "json_invalid" else ".".join(path)
        said = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        message = f"{field or 'the body'} {said[:1].lower()}{said[1:]}"
        return error_response(ErrorResponse(422, message, "/openapi.json lists the fields", 2, field), _path(request))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return error_response(ErrorResponse(error.status_code, str(error.detail)), _path(request))

    async def unexpected(request: Request, error: Exception) -> Response:
        said = f"unexpected: {type(error).__name__}"
        return error_response(ErrorResponse(500, said, "please report it", 1), _path(request))

    app.add_exception_handler(DiffusekitError, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)


def _path(request: Request) -> str:
    return request.url.path
