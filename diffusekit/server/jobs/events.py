"""News of one job, from the thread that does it to everyone who watches. Knows no work and no disk.

A watcher that is slow misses steps and previews, never the end: it is told the latest state.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from PIL import Image

from .job import Job

PREVIEW_EVERY = 0.2  # seconds
PEEKED = 3.0  # seconds for which one look at the preview asks for the next ones


@dataclass(frozen=True)
class Event:
    """Something new: `kind` is `queued`, `progress`, `preview`, or the last one of all: `done`,
    `failed`, `cancelled`, or `kept` (the server stops; the job goes on when it starts again)."""

    kind: Literal["queued", "progress", "preview", "done", "failed", "cancelled", "kept"]
    job: Job
    preview: tuple[Image.Image, ...] = ()

    @property
    def last(self) -> bool:
        return self.kind == "kept" or self.job.over


class Feed:
    """The present state of a job that is not over, and its watchers. Safe to use from any thread."""

    def __init__(self, job: Job):
        self.job, self.preview = job, ()
        self.cancelled = self.skipped = self.closed = False
        self.lock = threading.Lock()
        self.version = 1
        self._watches: list[Watch] = []
        self._peeked, self._next_preview = float("-inf"), 0.0

    def update(self, **changes: Any) -> Job:
        """Change the job; everyone is told."""
        with self.lock:
            self.job = replace(self.job, **changes)
            self._changed()
            return self.job

    def show(self, make: Callable[[], Sequence[Image.Image]]) -> None:
        """Let `make` draw a preview if somebody wants one now.

        Every 200 ms at most, and so that previews take a fifth of the time at most.
        """
        started = time.monotonic()
        if not self._due(started):
            return
        pictures = tuple(make())
        ended = time.monotonic()
        with self.lock:
            self._next_preview = ended + max(PREVIEW_EVERY, 4 * (ended - started))
            self.preview = pictures
            for watch in self._watches:
                if watch.owed:
                    watch.kept.append(Event("preview", self.job, pictures))
                watch.owed, watch.fresh = False, watch.previews
            self._changed()

    def peek(self) -> tuple[Image.Image, ...]:
        """The latest preview; asks for newer ones for a few seconds."""
        self._peeked = time.monotonic()
        return self.preview

    def close(self) -> None:
        """Nothing more will come, though the job may not be over."""
        with self.lock:
            self.closed = True
            self._changed()

    def watch(self, wake: Callable[[], object], *, previews: bool = True, partials: int = 0) -> Watch:
        """Be told by `wake`, in any thread, that `take` has something new."""
        watch = Watch(self, wake, previews=previews, partials=partials)
        with self.lock:
            self._watches.append(watch)
        return watch

    def leave(self, watch: Watch) -> None:
        with self.lock, contextlib.suppress(ValueError):
            self._watches.remove(watch)

    def _due(self, now: float) -> bool:
        with self.lock:
            for watch in self._watches:
                parts = int(self.job.progress * (watch.partials + 1))
                if watch.partials and watch.parts < parts <= watch.partials:
                    watch.parts, watch.owed = parts, True
            watched = any(w.previews for w in self._watches) or now - self._peeked < PEEKED
            return any(w.owed for w in self._watches) or (watched and now >= self._next_preview)

    def _changed(self) -> None:
        self.version += 1
        for watch in self._watches:
            watch.wake()


class Watch:
    """One watcher's place in a feed.

    `previews` asks for previews as often as they are to be had, `partials` for that many, spread evenly.
    """

    def __init__(self, feed: Feed, wake: Callable[[], object], *, previews: bool = True, partials: int = 0):
        self.feed, self.wake, self.previews, self.partials = feed, wake, previews, partials
        self.parts, self.owed, self.fresh = 0, False, False
        self.kept: deque[Event] = deque()  # partials, which are never missed
        self._seen = 0

    def take(self) -> Event | None:
        """What is new since the last time, in one event; None if nothing is."""
        feed = self.feed
        with feed.lock:
            if self.kept:
                return self.kept.popleft()
            if self._seen == feed.version:
                return None
            self._seen = feed.version
            job, fresh, self.fresh = feed.job, self.fresh, False
            preview = feed.preview if fresh else ()
            if job.over:
                assert job.state not in ("queued", "running")
                return Event(job.state, job)
            if feed.closed:
                return Event("kept", job)
            if preview:
                return Event("preview", job, preview)
            return Event("queued" if job.state == "queued" else "progress", job)

    def close(self) -> None:
        self.feed.leave(self)
