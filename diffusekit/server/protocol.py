"""HTTP as it comes from the socket, with an end to patience: heads of requests are short and come soon.

uvicorn's quicker parser sets no bounds to either. Knows no paths.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD = 65_536  # bytes
PATIENCE = 20.0  # seconds


class BoundedProtocol(HttpToolsProtocol):
    """Closes connections whose next request's head is too long or too slow."""

    _seen = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        if idle:
            self._seen += len(data)
            self._wait()
        super().data_received(data)
        if idle and self._seen > HEAD:
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._arrived()
        super().on_headers_complete()

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(PATIENCE, self.transport.close)

    def _arrived(self) -> None:
        """A head is complete, or none will come."""
        self._seen = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
