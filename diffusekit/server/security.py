"""The door: who may come in, from which page, with how much. Covers every route and whatever is mounted.

Pure ASGI, before anything else reads the request. Knows no routes and no jobs.
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
from .errors import ErrorResponse, error_response

PUBLIC_PATH = "/healthz"  # the one path that needs no key
MAX_BODY = 1_000_000
BODY_TIMEOUT = 30.0  # seconds a body may take
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
    """What the guard asks of a request.

    `large` are the beginnings of paths whose bodies may be large, `uploads` of those that may be
    something else than JSON (and large); `asking` are the paths where work is asked for.
    """

    keys: tuple[bytes, ...] = ()
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    any_address: bool = False
    large_body_paths: tuple[str, ...] = ("/sdapi/v1/png-info",)
    upload_paths: tuple[str, ...] = ()
    job_paths: tuple[str, ...] = ("/sdapi/v1/txt2img", "/v1/images/generations", "/api/jobs")

    @classmethod
    def from_settings(cls, settings: ServeSettings, upload_paths: tuple[str, ...] = ()) -> SecurityPolicy:
        """Raises `UsageError` for a key that is none, and for an open server without any."""
        keys = []
        if settings.auth is not None:
            user, colon, password = settings.auth.partition(":")
            if not (user and colon and password):
                raise UsageError("auth is not of the form USER:PASSWORD", "neither may be empty")
            keys.append(_digest("basic", settings.auth))
        if settings.token is not None:
            if not settings.token.strip():
                raise UsageError("token is empty", "openssl rand -hex 32 makes a good one")
            keys.append(_digest("token", settings.token))
        here = _is_loopback(settings.host)
        if not (here or keys):
            raise UsageError(
                f"on {settings.host} anybody could use this server",
                "set DIFFUSEKIT_AUTH=user:password or DIFFUSEKIT_TOKEN, or leave --host out",
            )
        for origin in settings.allow_origin:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or parts.path or not parts.netloc:
                raise UsageError(f"allow_origin {origin!r} is no origin", "like https://example.org")
        names = ("localhost", settings.host, *settings.allow_host)
        hosts = tuple(name.lower().strip("[]") for name in names)
        return cls(tuple(keys), hosts, settings.allow_origin, not here, upload_paths=upload_paths)


def _digest(kind: str, key: str) -> bytes:
    """Keys are compared by hash: in a time that says nothing of them, not even their length."""
    return hashlib.sha256(f"{kind} {key}".encode("utf-8", "surrogateescape")).digest()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class SecurityMiddleware:
    """ASGI middleware: host, origin, key, kind and size of the body; headers of the answer.

    `room` raises `Overloaded` when nobody more can be served: who asks for work then is told so before the
    request is read.
    """

    def __init__(self, app: ASGIApp, policy: SecurityPolicy, check_capacity: Callable[[], None] = lambda: None):
        self.app, self.policy, self.check_capacity = app, policy, check_capacity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        path, headers = scope["path"], Headers(scope=scope)
        fault = self._check_request(scope, headers)
        if scope["type"] == "websocket":
            if fault:
                await receive()
                return await send({"type": "websocket.close", "code": 1008})
            return await self.app(scope, receive, send)
        guarded = _with_headers(path, send)
        if fault is None and scope["method"] == "POST" and path in self.policy.job_paths:
            fault = self._check_capacity()
        if fault is None and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            fault, receive = await self._check_body(path, headers, receive)
        if fault:
            return await error_response(fault, path)(scope, receive, guarded)
        await self.app(scope, receive, guarded)

    def _check_request(self, scope: MutableMapping[str, Any], headers: Headers) -> ErrorResponse | None:
        policy, host = self.policy, headers.get("host", "")
        if not self._is_known_host(host):
            return ErrorResponse(403, f"this server is not called {host[:100]!r}", "see --allow-host")
        origin = headers.get("origin")
        if origin is not None and origin not in policy.origins and urlsplit(origin).netloc != host:
            return ErrorResponse(403, "other web pages may not use this server", "see --allow-origin")
        changes = scope.get("method", "GET") not in ("GET", "HEAD", "OPTIONS")
        if changes and origin is None and headers.get("sec-fetch-site") == "cross-site":
            return ErrorResponse(403, "other web pages may not use this server", "see --allow-origin")
        if policy.keys and scope["path"] != PUBLIC_PATH and not self._is_authorized(headers):
            return ErrorResponse(401, "a user and password or a token is needed", "see docs/serving.md")
        return None

    def _check_capacity(self) -> ErrorResponse | None:
        try:
            self.check_capacity()
        except Overloaded as error:
            return ErrorResponse.from_error(error)
        return None

    def _is_known_host(self, host: str) -> bool:
        """Whether a Host header names us: the defence against DNS rebinding, which needs a name."""
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
        """A bearer token; or user and password, where a token is also good as the password."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        candidates: list[bytes] = []
        if scheme.lower() == "bearer":
            candidates.append(_digest("token", given.strip()))
        elif scheme.lower() == "basic":
            with contextlib.suppress(binascii.Error, ValueError):
                pair = base64.b64decode(given, validate=True).decode("utf-8", "surrogateescape")
                candidates += [_digest("basic", pair), _digest("token", pair.partition(":")[2])]
        found = [hmac.compare_digest(c, key) for c in candidates for key in self.policy.keys]
        return any(found)

    async def _check_body(self, path: str, headers: Headers, receive: Receive) -> tuple[ErrorResponse | None, Receive]:
        """Read a JSON body whole, within limits, and hand it on; let an upload through, counted."""
        policy = self.policy
        declared = headers.get("content-length", "")
        length = int(declared) if declared.isdecimal() else 0
        upload = bool(policy.upload_paths) and path.startswith(policy.upload_paths)
        limit = MAX_UPLOAD if upload or path.startswith(policy.large_body_paths) else MAX_BODY
        too_large = ErrorResponse(413, f"the body is larger than {limit:,} bytes", "send less")
        if length > limit:
            return too_large, receive
        chunked = "transfer-encoding" in headers
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if (length or chunked) and kind != "application/json" and not upload:
            said = f"the body must be application/json, not {kind[:60] or 'of no kind'}"
            return ErrorResponse(415, said, "set the header Content-Type"), receive
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
    """A `receive` that first gives the body that was read."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


def _limit(receive: Receive, limit: int) -> Receive:
    """A `receive` that calls a body that grows beyond its limit a client that went away."""
    seen = 0

    async def counting() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return message if seen <= limit else {"type": "http.disconnect"}

    return counting


def _with_headers(path: str, send: Send) -> Send:
    policy = STRICT_CSP if path.startswith(API_PATHS) else PAGE_CSP

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Referrer-Policy"] = "no-referrer"
            headers["Content-Security-Policy"] = policy
        await send(message)

    return guarded
