"""Watching a feed to its end: by a thread that waits, or by a coroutine. Knows no HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Iterator

from .events import Event, Feed


def watch(feed: Feed, *, previews: bool = True) -> Iterator[Event]:
    """Events until the last, blocking."""
    news = threading.Event()
    place = feed.watch(news.set, previews=previews)
    try:
        while True:
            news.clear()
            if event := place.take():
                yield event
                if event.last:
                    return
            else:
                news.wait()
    finally:
        place.close()


async def follow(feed: Feed, *, previews: bool = True, partials: int = 0) -> AsyncGenerator[Event]:
    """Events until the last, for a coroutine."""
    loop, news = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended before the job
            loop.call_soon_threadsafe(news.set)

    place = feed.watch(wake, previews=previews, partials=partials)
    try:
        while True:
            news.clear()
            if event := place.take():
                yield event
                if event.last:
                    return
            else:
                await news.wait()
    finally:
        place.close()
