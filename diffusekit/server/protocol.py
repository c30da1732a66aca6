"""HTTP as it comes from the socket, with an end to patience: heads of requests are short and come soon.

uvicorn's quicker parser sets no bounds to either. Knows no paths.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER = 65_536  # bytes
HEADER_TIMEOUT = 20.0  # seconds


class BoundedProtocol(HttpToolsProtocol):
    """Closes connections whose next request's head is too long or too slow."""

    _received = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        idle = self.cycle is None or self.cycle.response_complete
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
        """A head is complete, or none will come."""
        self._received = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
