"""Listen, serve, and leave in good order. Knows no routes."""

from __future__ import annotations

import asyncio
import socket
import threading
from types import FrameType
from typing import Any

import uvicorn

from ..errors import UsageError
from .jobs.queue import Jobs
from .protocol import BoundedProtocol

JOB_TIMEOUT = 25.0  # seconds the running job has after a signal; all is over within thirty
GRACE_PERIOD = 1.0  # seconds that answers may still take when the running job is over


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; raises `UsageError` when there is none to be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
        listener.listen(2048)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}", "try another --port") from None
    return listener


def url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn, but after the first signal it answers on, refusing work, until the running job is over."""

    def __init__(self, app: Any, jobs: Jobs):
        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=3,
            ws="none",
        )
        super().__init__(config)
        self._jobs, self._is_stopping = jobs, False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._is_stopping:
            return super().handle_exit(sig, frame)
        self._is_stopping = True
        self._captured_signals.append(sig)
        self._jobs.stop_accepting()
        threading.Thread(target=self._stop, name="leaving", daemon=True).start()

    def _stop(self) -> None:
        self._jobs.close(JOB_TIMEOUT)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let answers come to their end, then close what has none: the streams of pages that are open."""
        open_ = self.server_state.connections
        for _ in range(round(GRACE_PERIOD / 0.05)):
            if all(_is_idle(connection) for connection in open_):
                break
            await asyncio.sleep(0.05)
        for connection in list(open_):
            if not _is_idle(connection):
                connection.transport.abort()
        await super().shutdown(sockets)


def _is_idle(connection: Any) -> bool:
    return connection.cycle is None or connection.cycle.response_complete
