"""Security middleware: checks host, origin, credentials, content type and body size of every request.

Pure ASGI, so it runs before anything else reads the request, and it covers what is mounted on the application.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import ipaddress
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import Overloaded, UsageError
from ..settings import MAX_UPLOAD, ServeSettings
from .errors import ErrorBodies, ErrorResponse, error_response, route_path
from .proxy import DIRECT_HOST

PUBLIC_PATH = "/healthz"  # the only path without credentials
MAX_BODY = 1_000_000
BODY_TIMEOUT = 30.0  # seconds a body may take
FORM_PATHS = ("/v1/images/edits", "/v1/images/variations")  # they take multipart forms with images
API_PATHS = (
    "/api/",
    "/v1/",
    "/sdapi/",
    "/outputs/",
    "/mcp",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/gradio_api/file",
)
STRICT_CSP = "default-src 'none'; frame-ancestors 'none'; sandbox"
PAGE_CSP = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'; connect-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)


@dataclass(frozen=True)
class SecurityPolicy:
    """What `SecurityMiddleware` requires of a request.

    `keys` are digests of credentials; without any, requests need none. `large_body_paths` are the beginnings of paths
    whose bodies may be large. `upload_paths` are those of bodies that may also be something else than JSON.
    `job_paths` are the paths that submit jobs.
    """

    keys: tuple[bytes, ...] = ()
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    any_address: bool = False
    large_body_paths: tuple[str, ...] = ("/sdapi/v1/png-info", "/sdapi/v1/img2img", "/api/jobs")
    upload_paths: tuple[str, ...] = FORM_PATHS
    job_paths: tuple[str, ...] = (
        "/sdapi/v1/txt2img",
        "/sdapi/v1/img2img",
        "/v1/images/generations",
        *FORM_PATHS,
        "/api/jobs",
    )

    @classmethod
    def from_settings(cls, settings: ServeSettings, upload_paths: tuple[str, ...] = ()) -> SecurityPolicy:
        """Raises `UsageError` for invalid credentials, and for a server that is open to others without any."""
        keys = []
        if settings.auth is not None:
            user, colon, password = settings.auth.partition(":")
            if not (user and colon and password):
                raise UsageError("`auth` must be USER:PASSWORD", "neither may be empty")
            keys.append(_digest("basic", settings.auth))
        if settings.token is not None:
            if not settings.token.strip():
                raise UsageError("`token` is empty", "`openssl rand -hex 32` makes a good one")
            keys.append(_digest("token", settings.token))
        here = _is_loopback(settings.host)
        if not (here or keys):
            raise UsageError(
                f"anybody could use a server on {settings.host} without credentials",
                "set DIFFUSEKIT_AUTH=user:password or DIFFUSEKIT_TOKEN, or leave out `host`",
            )
        for origin in settings.allow_origin:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or parts.path or not parts.netloc:
                raise UsageError(f"`allow_origin` {origin!r} is not a valid origin", "for example https://example.org")
        names = ("localhost", settings.host, *settings.allow_host)
        hosts = tuple(name.lower().strip("[]") for name in names)
        return cls(tuple(keys), hosts, settings.allow_origin, not here, upload_paths=(*FORM_PATHS, *upload_paths))


def _digest(kind: str, key: str) -> bytes:
    """Credentials are compared by hash, so that the time taken says nothing about them, not even their length."""
    return hashlib.sha256(f"{kind} {key}".encode("utf-8", "surrogateescape")).digest()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class SecurityMiddleware:
    """Checks a request, then adds security headers to its response.

    `check_capacity` raises `Overloaded` when the queue is full. A request that submits a job is then refused before its
    body is read.
    """

    def __init__(
        self, app: ASGIApp, *, policy: SecurityPolicy, error_bodies: ErrorBodies, check_capacity: Callable[[], None]
    ):
        self.app, self.policy = app, policy
        self.error_bodies, self.check_capacity = error_bodies, check_capacity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        path, headers = route_path(scope), Headers(scope=scope)
        error = self._check_request(scope, headers)
        if scope["type"] == "websocket":
            if error:
                await receive()
                return await send({"type": "websocket.close", "code": 1008})
            return await self.app(scope, receive, send)
        send = _with_headers(path, send)
        if error is None and scope["method"] == "POST" and path in self.policy.job_paths:
            error = self._check_capacity()
        if error is None and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            error, receive = await self._check_body(path, headers, receive)
        if error:
            return await error_response(error, path, self.error_bodies)(scope, receive, send)
        await self.app(scope, receive, send)

    def _check_request(self, scope: MutableMapping[str, Any], headers: Headers) -> ErrorResponse | None:
        policy, host = self.policy, headers.get("host", "")
        # A page on this machine could forge the forwarded host, so the one that the connection was for counts too.
        for name in (scope.get(DIRECT_HOST, host), host):
            if not self._is_known_host(name):
                return ErrorResponse(403, f"unknown host {name[:100]!r}", "add it to `allow_host`")
        origin = headers.get("origin")
        if origin is not None and origin not in policy.origins and urlsplit(origin).netloc != host:
            return ErrorResponse(403, "this server refuses requests from other web pages", "see `allow_origin`")
        changes = scope.get("method", "GET") not in ("GET", "HEAD", "OPTIONS")
        if changes and origin is None and headers.get("sec-fetch-site") == "cross-site":
            return ErrorResponse(403, "this server refuses requests from other web pages", "see `allow_origin`")
        if policy.keys and route_path(scope) != PUBLIC_PATH and not self._is_authorized(headers):
            return ErrorResponse(401, "a user and password, or a token, is required", "see docs/serving.md")
        return None

    def _check_capacity(self) -> ErrorResponse | None:
        try:
            self.check_capacity()
        except Overloaded as error:
            return ErrorResponse.from_error(error)
        return None

    def _is_known_host(self, host: str) -> bool:
        """Whether a Host header names this server. This is the defense against DNS rebinding, which needs a name."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name in self.policy.hosts or _is_loopback(name):
            return True
        try:
            return self.policy.any_address and bool(ipaddress.ip_address(name))
        except ValueError:
            return False

    def _is_authorized(self, headers: Headers) -> bool:
        """Whether there is a valid bearer token, or a valid user and password. The token is also a valid password."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        candidates: list[bytes] = []
        if scheme.lower() == "bearer":
            candidates.append(_digest("token", given.strip()))
        elif scheme.lower() == "basic":
            with contextlib.suppress(binascii.Error, ValueError):
                pair = base64.b64decode(given, validate=True).decode("utf-8", "surrogateescape")
                candidates += [_digest("basic", pair), _digest("token", pair.partition(":")[2])]
        matches = [hmac.compare_digest(c, key) for c in candidates for key in self.policy.keys]
        return any(matches)

    async def _check_body(self, path: str, headers: Headers, receive: Receive) -> tuple[ErrorResponse | None, Receive]:
        """Read a JSON body whole, within limits, and pass it on; limit an upload while it is read."""
        policy = self.policy
        declared = headers.get("content-length", "")
        length = int(declared) if declared.isdecimal() else 0
        upload = bool(policy.upload_paths) and path.startswith(policy.upload_paths)
        limit = MAX_UPLOAD if upload or path.startswith(policy.large_body_paths) else MAX_BODY
        too_large = ErrorResponse(413, f"the body is larger than {limit:,} bytes", "send a smaller one")
        if length > limit:
            return too_large, receive
        chunked = "transfer-encoding" in headers
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if (length or chunked) and kind != "application/json" and not upload:
            message = f"the body must be application/json, not {kind[:60] or 'without a type'}"
            return ErrorResponse(415, message, "set the header Content-Type"), receive
        if upload:
            return None, _limit(receive, limit)
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                while True:
                    message = await receive()
                    parts.append(message.get("body", b""))
                    if sum(map(len, parts)) > limit:
                        return too_large, receive
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            return ErrorResponse(408, "the body came too slowly", "send it again"), receive
        return None, _replay(b"".join(parts), receive)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that first returns a body that was read already."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def _limit(receive: Receive, limit: int) -> Receive:
    """A `receive` that reports a disconnected client when the body exceeds its limit."""
    size = 0

    async def limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        return message if size <= limit else {"type": "http.disconnect"}

    return limited


def _with_headers(path: str, send: Send) -> Send:
    policy = STRICT_CSP if path.startswith(API_PATHS) else PAGE_CSP

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Referrer-Policy"] = "no-referrer"
            headers["Content-Security-Policy"] = policy
        await send(message)

    return send_with_headers
