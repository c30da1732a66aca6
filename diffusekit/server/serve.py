"""Start-up and shutdown: check the settings, open the jobs, build the application, listen, stop in good order.

Heavy modules are imported only when the settings have been checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..errors import UsageError
from ..settings import ServeSettings
from .proxy import ProxyPolicy
from .security import SecurityPolicy

if TYPE_CHECKING:
    from .jobs.queue import Jobs

JOB_TIMEOUT = 25.0  # seconds that the running job has after a signal; the process ends within thirty
GRACE_PERIOD = 1.0  # seconds that responses may still take after the running job has ended
MAX_HEADER = 65_536  # bytes
HEADER_TIMEOUT = 20.0  # seconds


class PageBuilder(Protocol):
    """What the server needs of the web page: `diffusekit.server.ui` fits."""

    @property
    def UPLOAD_PATHS(self) -> tuple[str, ...]: ...

    def build(self, jobs: Jobs, settings: ServeSettings, /) -> Any: ...

    def mount(self, app: FastAPI, page: Any, settings: ServeSettings, /) -> FastAPI: ...


@dataclass
class Application:
    """Everything of a server but the socket. `page` is what the page builder built."""

    settings: ServeSettings
    jobs: Jobs
    app: FastAPI
    page: Any = None

    def run(self, announce: Callable[[str], None], *, listener: socket.socket | None = None) -> None:
        """Serve until a signal comes. `announce` gets the address once the server listens."""
        try:
            listener = listener or listen(self.settings.host, self.settings.port)
            announce(address_of(listener))
            Server(self.app, self.jobs).run(sockets=[listener])
        finally:
            self.jobs.close(0)


def check(settings: ServeSettings) -> None:
    """Raise `UsageError` or `ModelError` for settings that cannot be served, before torch is imported."""
    SecurityPolicy.from_settings(settings)
    ProxyPolicy.from_settings(settings)
    if settings.mcp:
        from .routes import mcp_tool

        mcp_tool.check_installed()
    from .. import hub

    hub.locate(settings.model, half=lambda: _needs_half(settings))


def _needs_half(settings: ServeSettings) -> bool:
    """Whether a model that has to be fetched is needed in half precision; imports torch."""
    from ..device import choose

    return choose(settings.device, settings.dtype).is_half


def prepare(settings: ServeSettings, page_builder: PageBuilder | None = None) -> Application:
    """Check the settings, open the jobs and build the application, with a page if there is a builder for it."""
    check(settings)
    from .app import build
    from .jobs.queue import Jobs

    jobs = Jobs(settings).open()
    if page_builder is None:
        return Application(settings, jobs, build(settings, jobs))
    page = page_builder.build(jobs, settings)
    app = build(settings, jobs, upload_paths=page_builder.UPLOAD_PATHS)
    return Application(settings, jobs, page_builder.mount(app, page, settings), page)


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; raises `UsageError` if the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
        listener.listen(2048)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"cannot listen on {host}:{port}: {reason}", "choose another `port`") from None
    return listener


def address_of(listener: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """A uvicorn server that, after the first signal, responds and refuses jobs until the running job has ended."""

    def __init__(self, app: Any, jobs: Jobs):
        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=3,
            ws="none",
            proxy_headers=False,  # proxy.py does that, and asks who sent them
        )
        super().__init__(config)
        self._jobs, self._is_stopping = jobs, False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._is_stopping:
            return super().handle_exit(sig, frame)
        self._is_stopping = True
        self._captured_signals.append(sig)
        self._jobs.stop_accepting()
        threading.Thread(target=self._stop, name="shutdown", daemon=True).start()

    def _stop(self) -> None:
        self._jobs.close(JOB_TIMEOUT)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let responses finish, then close connections that never do: the streams of open pages."""
        connections = self.server_state.connections
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_PERIOD):
                while not all(_is_idle(connection) for connection in connections):
                    await asyncio.sleep(0.05)
        for connection in list(connections):
            if not _is_idle(connection):
                connection.transport.abort()
        await super().shutdown(sockets)


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 with limits on header size and time, which uvicorn's faster parser does not set."""

    _received = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        idle = _is_idle(self)
        if idle:
            self._received += len(data)
            self._start_timer()
        super().data_received(data)
        if idle and self._received > MAX_HEADER:
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._stop_timer()
        super().on_headers_complete()

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEADER_TIMEOUT, self.transport.close)

    def _stop_timer(self) -> None:
        """The header is complete, or the connection is closed."""
        self._received = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _is_idle(connection: Any) -> bool:
    return connection.cycle is None or connection.cycle.response_complete
