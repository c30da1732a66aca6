"""Reverse proxies: the path that the server has below one, and the X-Forwarded headers of those that are trusted.

A forged header would put another host into the page's addresses. So the headers count only from a trusted address, and
no application behind this middleware sees them.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import UsageError
from ..settings import ServeSettings
from .errors import ErrorBodies, ErrorResponse, error_response, route_path

DIRECT_HOST = "diffusekit.direct_host"  # key of the scope: the Host that the proxy sent, beside the forwarded one
ROUTES = (
    "/api/jobs",
    "/api/pictures",
    "/assets/",
    "/gradio_api/queue",
    "/healthz",
    "/mcp",
    "/metrics",
    "/outputs/",
    "/readyz",
    "/sdapi/v1/txt2img",
    "/static/",
    "/svelte/",
    "/v1/images/generations",
    "/v1/models",
)
_PREFIX = re.compile(r"(/(?!\.\.?(/|$))[\w.~@+-]+)*", re.ASCII)
_FORWARDED = (b"x-forwarded-", b"forwarded", b"x-gradio-server")


@dataclass(frozen=True)
class ProxyPolicy:
    """`root_path` is the path below a proxy, "" for none. `networks` are those of trusted proxies."""

    root_path: str = ""
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    trusts_all: bool = False

    @classmethod
    def from_settings(cls, settings: ServeSettings) -> ProxyPolicy:
        """Raises `UsageError` for a path or an address that is none.

        Without `root_path`, Gradio's variable GRADIO_ROOT_PATH counts.
        """
        given = settings.root_path or urlsplit(os.environ.get("GRADIO_ROOT_PATH", "")).path
        networks = []
        for name in settings.trusted_proxy:
            try:
                networks += [ipaddress.ip_network(name, strict=False)] if name != "*" else []
            except ValueError:
                hint = "for example 10.0.0.5 or 172.16.0.0/12, or * for all"
                raise UsageError(f"`trusted_proxy` {name[:60]!r} is not an address", hint) from None
        try:
            root_path = parse_prefix(given)
        except ValueError as error:
            raise UsageError(f"`root_path` {given[:60]!r} {error}", "for example /images") from None
        return cls(root_path, tuple(networks), "*" in settings.trusted_proxy)

    def trusts(self, address: str) -> bool:
        """Whether the headers of a client with this address count."""
        if self.trusts_all:
            return True
        try:
            known = ipaddress.ip_address(address)
        except ValueError:
            return False
        known = getattr(known, "ipv4_mapped", None) or known
        return any(known in network for network in self.networks)


def parse_prefix(text: str) -> str:
    """The path of a prefix: `/sd` for `sd`, `/sd/` and `%2Fsd`; "" for `/`. Raises `ValueError`."""
    path = "/" + unquote(text.strip()).removeprefix("/").removesuffix("/")
    if path == "/":
        return ""
    if not _PREFIX.fullmatch(path) or len(path) > 500:
        raise ValueError("is not a path of plain words")
    if any(f"{route}/".startswith(f"{path}/") for route in ROUTES):
        raise ValueError("is a path of the server itself")
    return path


class ProxyMiddleware:
    """Applies what a trusted proxy says of a request, hides the headers, and adds or removes the root path.

    It does not matter whether the proxy removes the prefix from the path. The setting `root_path` is stronger than the
    header. The scope is changed in place, so that what is outside sees the same request.
    """

    def __init__(self, app: ASGIApp, *, policy: ProxyPolicy, error_bodies: ErrorBodies):
        self.app, self.policy, self.error_bodies = app, policy, error_bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        headers, root = Headers(raw=list(scope["headers"])), self.policy.root_path
        scope["headers"] = [pair for pair in scope["headers"] if not pair[0].lower().startswith(_FORWARDED)]
        if self.policy.trusts((scope.get("client") or ("",))[0]):
            try:
                root = root or _prefix_of(headers)
            except ValueError as error:
                refusal = ErrorResponse(400, f"the proxy's X-Forwarded-Prefix {error}", "see docs/serving.md")
                return await error_response(refusal, scope["path"], self.error_bodies)(scope, receive, send)
            self._apply(scope, headers)
        without_slash = _add_root(scope, root)
        if without_slash and scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            query = scope.get("query_string", b"").decode("latin-1")
            return await RedirectResponse(f"{root}/{'?' if query else ''}{query}", 307)(scope, receive, send)
        await self.app(scope, receive, send)

    def _apply(self, scope: Scope, headers: Headers) -> None:
        """Take over scheme, host and client address."""
        scheme = _first(headers, "x-forwarded-proto").lower()
        if scheme in ("http", "https"):
            scope["scheme"] = scheme if scope["type"] == "http" else scheme.replace("http", "ws")
        if host := _first(headers, "x-forwarded-host"):
            scope[DIRECT_HOST] = headers.get("host", "")
            others = [pair for pair in scope["headers"] if pair[0].lower() != b"host"]
            scope["headers"] = [(b"host", host.encode("latin-1")), *others]
        addresses = [part.strip() for part in ",".join(headers.getlist("x-forwarded-for")).split(",")]
        untrusted = [address for address in addresses if address and not self.policy.trusts(address)]
        if untrusted:  # what is left of the last one may be forged
            scope["client"] = (untrusted[-1], 0)


def _first(headers: Headers, name: str) -> str:
    """The first of several values, which is that of the proxy next to the browser."""
    return headers.get(name, "").partition(",")[0].strip()


def _prefix_of(headers: Headers) -> str:
    """The prefixes of all proxies, the outermost first."""
    given = ",".join(headers.getlist("x-forwarded-prefix"))
    return "".join(parse_prefix(part) for part in given.split(","))


def _add_root(scope: Scope, root: str) -> bool:
    """Write the path with the root path before it; return whether the root path came without a slash behind it."""
    if not root:
        return False
    without_slash = scope["path"] == root
    rest = route_path({"path": scope["path"], "root_path": root})
    raw, raw_root = scope.get("raw_path") or scope["path"].encode(), root.encode()
    raw_rest = raw[len(raw_root) :] if raw == raw_root or raw.startswith(raw_root + b"/") else raw
    scope.update(root_path=root, path=root + rest, raw_path=raw_root + (raw_rest or b"/"))
    return without_slash
