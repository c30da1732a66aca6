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
from ..settings import ServeSettings
from .errors import Fault, answer

OPEN = "/healthz"  # the one path that needs no key
BODY = 1_000_000
LARGE_BODY = 32 * 2**20
PATIENCE = 30.0  # seconds a body may take
OURS = (
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
STRICT_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"
PAGE_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'; connect-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)


@dataclass(frozen=True)
class Rules:
    """What the guard asks of a request.

    `large` are the beginnings of paths whose bodies may be large, `uploads` of those that may be
    something else than JSON (and large); `asking` are the paths where work is asked for.
    """

    keys: tuple[bytes, ...] = ()
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    any_address: bool = False
    large: tuple[str, ...] = ("/sdapi/v1/png-info",)
    uploads: tuple[str, ...] = ()
    asking: tuple[str, ...] = ("/sdapi/v1/txt2img", "/v1/images/generations", "/api/jobs")

    @classmethod
    def of(cls, settings: ServeSettings, uploads: tuple[str, ...] = ()) -> Rules:
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
        return cls(tuple(keys), hosts, settings.allow_origin, not here, uploads=uploads)


def _digest(kind: str, key: str) -> bytes:
    """Keys are compared by hash: in a time that says nothing of them, not even their length."""
    return hashlib.sha256(f"{kind} {key}".encode("utf-8", "surrogateescape")).digest()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware: host, origin, key, kind and size of the body; headers of the answer.

    `room` raises `Overloaded` when nobody more can be served: who asks for work then is told so before the
    request is read.
    """

    def __init__(self, app: ASGIApp, rules: Rules, room: Callable[[], None] = lambda: None):
        self.app, self.rules, self.room = app, rules, room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        path, headers = scope["path"], Headers(scope=scope)
        fault = self._refused(scope, headers)
        if scope["type"] == "websocket":
            if fault:
                await receive()
                return await send({"type": "websocket.close", "code": 1008})
            return await self.app(scope, receive, send)
        guarded = _with_headers(path, send)
        if fault is None and scope["method"] == "POST" and path in self.rules.asking:
            fault = self._overloaded()
        if fault is None and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            fault, receive = await self._body(path, headers, receive)
        if fault:
            return await answer(fault, path)(scope, receive, guarded)
        await self.app(scope, receive, guarded)

    def _refused(self, scope: MutableMapping[str, Any], headers: Headers) -> Fault | None:
        rules, host = self.rules, headers.get("host", "")
        if not self._may_be_called(host):
            return Fault(403, f"this server is not called {host[:100]!r}", "see --allow-host")
        origin = headers.get("origin")
        if origin is not None and origin not in rules.origins and urlsplit(origin).netloc != host:
            return Fault(403, "other web pages may not use this server", "see --allow-origin")
        changes = scope.get("method", "GET") not in ("GET", "HEAD", "OPTIONS")
        if changes and origin is None and headers.get("sec-fetch-site") == "cross-site":
            return Fault(403, "other web pages may not use this server", "see --allow-origin")
        if rules.keys and scope["path"] != OPEN and not self._knows(headers):
            return Fault(401, "a user and password or a token is needed", "see docs/serving.md")
        return None

    def _overloaded(self) -> Fault | None:
        try:
            self.room()
        except Overloaded as error:
            return Fault.of(error)
        return None

    def _may_be_called(self, host: str) -> bool:
        """Whether a Host header names us: the defence against DNS rebinding, which needs a name."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name in self.rules.hosts or _is_loopback(name):
            return True
        try:
            return self.rules.any_address and bool(ipaddress.ip_address(name))
        except ValueError:
            return False

    def _knows(self, headers: Headers) -> bool:
        """A bearer token; or user and password, where a token is also good as the password."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        candidates: list[bytes] = []
        if scheme.lower() == "bearer":
            candidates.append(_digest("token", given.strip()))
        elif scheme.lower() == "basic":
            with contextlib.suppress(binascii.Error, ValueError):
                pair = base64.b64decode(given, validate=True).decode("utf-8", "surrogateescape")
                candidates += [_digest("basic", pair), _digest("token", pair.partition(":")[2])]
        found = [hmac.compare_digest(c, key) for c in candidates for key in self.rules.keys]
        return any(found)

    async def _body(self, path: str, headers: Headers, receive: Receive) -> tuple[Fault | None, Receive]:
        """Read a JSON body whole, within limits, and hand it on; let an upload through, counted."""
        rules = self.rules
        declared = headers.get("content-length", "")
        length = int(declared) if declared.isdecimal() else 0
        upload = bool(rules.uploads) and path.startswith(rules.uploads)
        limit = LARGE_BODY if upload or path.startswith(rules.large) else BODY
        too_large = Fault(413, f"the body is larger than {limit:,} bytes", "send less")
        if length > limit:
            return too_large, receive
        chunked = "transfer-encoding" in headers
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if (length or chunked) and kind != "application/json" and not upload:
            said = f"the body must be application/json, not {kind[:60] or 'of no kind'}"
            return Fault(415, said, "set the header Content-Type"), receive
        if upload:
            return None, _counted(receive, limit)
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    message = await receive()
                    parts.append(message.get("body", b""))
                    if sum(map(len, parts)) > limit:
                        return too_large, receive
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            return Fault(408, "the body came too slowly", "send it again"), receive
        return None, _replayed(b"".join(parts), receive)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that first gives the body that was read."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


def _counted(receive: Receive, limit: int) -> Receive:
    """A `receive` that calls a body that grows beyond its limit a client that went away."""
    seen = 0

    async def counting() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return message if seen <= limit else {"type": "http.disconnect"}

    return counting


def _with_headers(path: str, send: Send) -> Send:
    policy = STRICT_POLICY if path.startswith(OURS) else PAGE_POLICY

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Referrer-Policy"] = "no-referrer"
            headers["Content-Security-Policy"] = policy
        await send(message)

    return guarded
