"""Errors as HTTP responses: the status of each, and one JSON body that an API may spell in its own way."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from ..errors import DiffusekitError, FileRefused, Overloaded, UsageError
from ..settings import GenerateSettings

_STATUS = {1: 500, 2: 422, 3: 415, 4: 422, 5: 500, 6: 413, 7: 503, 8: 503, 9: 429, 10: 400}  # by exit code
_FIELDS = {*GenerateSettings.model_fields, "prompts", "kind", "size"}


class FileForbidden(UsageError):
    """A file or an address that the page may not use."""

    status = 403


class ImageForbidden(FileRefused):
    """A path that is not an image's inside the outputs folder, whether or not the file exists."""

    status = 403


class ImageNotFound(FileRefused):
    """A valid path without an image."""

    status = 404


class JobFinished(UsageError):
    """The job is finished, so it cannot be cancelled."""

    status = 409


class JobNotFound(UsageError):
    """No job has that id, or the job is so old that it was deleted."""

    status = 404


class ModelNotFound(UsageError):
    """A model that this server does not have."""

    status = 404


class ModelNotUsable(UsageError):
    """A model that cannot become the default, because it is not here or cannot be loaded."""

    status = 422
    field = "sd_model_checkpoint"


class ShuttingDown(Overloaded):
    """The server is stopping and accepts no more jobs."""

    status = 503


@dataclass(frozen=True)
class ErrorResponse:
    """An error for an HTTP client. `code` is the command line's exit code."""

    status: int
    message: str
    hint: str = ""
    code: int = 2
    field: str = ""
    retry_after: int | None = None

    @classmethod
    def from_error(cls, error: DiffusekitError) -> ErrorResponse:
        first = error.message.partition(" ")[0].strip("`")
        return cls(
            status=getattr(error, "status", _STATUS.get(error.exit_code, 500)),
            message=error.message,
            hint=error.hint,
            code=error.exit_code,
            field=getattr(error, "field", first if error.exit_code == 2 and first in _FIELDS else ""),
            retry_after=error.retry_after if isinstance(error, Overloaded) else None,
        )

    @property
    def sentence(self) -> str:
        """Message and hint in one line."""
        return f"{self.message}; {self.hint}" if self.hint else self.message


ErrorBody = Callable[[ErrorResponse], dict[str, Any]]
ErrorBodies = Mapping[str, ErrorBody]  # by the beginning of a path


def error_body(error: ErrorResponse) -> dict[str, Any]:
    """The JSON body of an error where no API has its own."""
    values = asdict(error)
    return {"error": {name: values[name] for name in ("code", "message", "hint", "field")}}


def error_response(error: ErrorResponse, path: str, bodies: ErrorBodies) -> Response:
    """Build the response to a request for `path`."""
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="diffusekit", charset="UTF-8"'
    body = next((body for prefix, body in bodies.items() if path.startswith(prefix)), error_body)
    return Response(json.dumps(body(error)), error.status, headers, "application/json")


def route_path(scope: Mapping[str, object]) -> str:
    """The path of a request below the root path: what the routes match."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] or "/" if path == root or path.startswith(f"{root}/") else path


def add_handlers(app: FastAPI, bodies: ErrorBodies) -> None:
    """Turn every error of an application into an `ErrorResponse`."""

    def respond(request: Request, error: ErrorResponse) -> Response:
        return error_response(error, route_path(request.scope), bodies)

    async def expected(request: Request, error: Exception) -> Response:
        assert isinstance(error, DiffusekitError)
        return respond(request, ErrorResponse.from_error(error))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        path = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
        field = "" if first["type"] == "json_invalid" else ".".join(path)
        reason = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        message = f"{field or 'the body'} {reason[:1].lower()}{reason[1:]}"
        return respond(request, ErrorResponse(422, message, "/openapi.json lists the fields", 2, field))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return respond(request, ErrorResponse(error.status_code, str(error.detail)))

    async def unexpected(request: Request, error: Exception) -> Response:
        return respond(request, ErrorResponse(500, f"unexpected: {type(error).__name__}", "please report it", 1))

    app.add_exception_handler(DiffusekitError, expected)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)
