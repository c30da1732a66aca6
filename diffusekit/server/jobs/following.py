"""Watching a feed to its end: by a thread that waits, or by a coroutine. Knows no HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Generator

from .events import JobChannel, JobEvent


def watch(feed: JobChannel, *, previews: bool = True) -> Generator[JobEvent]:
    """Events until the last, blocking."""
    news = threading.Event()
    place = feed.subscribe(news.set, previews=previews)
    try:
        while True:
            news.clear()
            if event := place.next_event():
                yield event
                if event.is_last:
                    return
            else:
                news.wait()
    finally:
        place.close()


async def watch_async(feed: JobChannel, *, previews: bool = True, partials: int = 0) -> AsyncGenerator[JobEvent]:
    """Events until the last, for a coroutine."""
    loop, news = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended before the job
            loop.call_soon_threadsafe(news.set)

    place = feed.subscribe(wake, previews=previews, partials=partials)
    try:
        while True:
            news.clear()
            if event := place.next_event():
                yield event
                if event.is_last:
                    return
            else:
                await news.wait()
    finally:
        place.close()
