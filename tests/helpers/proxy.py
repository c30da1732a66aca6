"""A small reverse proxy, as people put one before a server."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tests.helpers.server import PATIENCE, until

HOP = {"connection", "keep-alive", "transfer-encoding", "host", "content-length"}


@contextlib.contextmanager
def proxying(target: str, prefix: str, *, strips: bool = True, headers: tuple[str, ...] = ()) -> Iterator[str]:
    """Serve `target` below the path `prefix`; yield the address of the proxy, with the prefix.

    `strips` says that the prefix is removed from the path. `headers` are the X-Forwarded headers that are sent. The
    server sees the host of the target, as by nginx' defaults, if Host is not among the headers.
    """
    client = httpx.AsyncClient(base_url=target, timeout=PATIENCE)

    async def forward(request: Request) -> Response:
        path = request.url.path
        if path != prefix and not path.startswith(f"{prefix}/"):
            return Response("not below the prefix", 404)
        given = {
            "X-Forwarded-Prefix": prefix,
            "X-Forwarded-Host": request.headers["host"],
            "X-Forwarded-Proto": "http",
            "X-Forwarded-For": "203.0.113.9",
            "Host": request.headers["host"],
        }
        sent = {name: value for name, value in request.headers.items() if name not in HOP}
        sent |= {name: given[name] for name in headers}
        address = httpx.URL(path=(path[len(prefix) :] or "/") if strips else path, query=request.url.query.encode())
        asked = client.build_request(request.method, address, headers=sent, content=await request.body())
        got = await client.send(asked, stream=True)
        back = {name: value for name, value in got.headers.items() if name not in HOP}
        return StreamingResponse(got.aiter_raw(), got.status_code, back, background=BackgroundTask(got.aclose))

    methods = ["GET", "HEAD", "POST", "DELETE", "OPTIONS"]
    app = Starlette(routes=[Route("/{path:path}", forward, methods=methods)])
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}{prefix}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
