"""The page below a path prefix: addresses in Gradio's HTML that do not know of it."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import route_path

ADDRESSES = (
    ('<base href="./"', '<base href="{root}/"'),
    # Browsers ask the root of the host for an icon that no link names.
    (
        '<link rel="manifest" href="/manifest.json"',
        '<link rel="icon" href="{root}/favicon.ico" /><link rel="manifest" href="{root}/manifest.json"',
    ),
)


class PageMiddleware:
    """Puts the root path of a request into the HTML of the page; everything else passes unchanged."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = scope.get("root_path", "")
        if scope["type"] != "http" or not root or route_path(scope) != "/" or scope["method"] != "GET":
            return await self.app(scope, receive, send)
        start: Message = {}
        parts: list[bytes] = []

        async def collect(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                body = _with_root(b"".join(parts), root)
                MutableHeaders(scope=start)["Content-Length"] = str(len(body))
                await send(start)
                await send({"type": "http.response.body", "body": body})

        plain = [pair for pair in scope["headers"] if pair[0].lower() != b"accept-encoding"]
        await self.app({**scope, "headers": plain}, receive, collect)


def _with_root(html: bytes, root: str) -> bytes:
    for address, prefixed in ADDRESSES:
        html = html.replace(address.encode(), prefixed.format(root=root).encode(), 1)
    return html
