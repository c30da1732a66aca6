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

PREVIEW_INTERVAL = 0.2  # seconds
REQUEST_DURATION = 3.0  # seconds for which one look at the preview asks for the next ones


@dataclass(frozen=True)
class JobEvent:
    """Something new: `kind` is `queued`, `progress`, `preview`, or the last one of all: `done`,
    `failed`, `cancelled`, or `kept` (the server stops; the job goes on when it starts again)."""

    kind: Literal["queued", "progress", "preview", "done", "failed", "cancelled", "kept"]
    job: Job
    preview: tuple[Image.Image, ...] = ()

    @property
    def is_last(self) -> bool:
        return self.kind == "kept" or self.job.is_finished


class JobChannel:
    """The present state of a job that is not over, and its watchers. Safe to use from any thread."""

    def __init__(self, job: Job):
        self.job, self.preview = job, ()
        self.cancel_requested = self.skip_requested = self.is_closed = False
        self.lock = threading.Lock()
        self.version = 1
        self._subscriptions: list[Subscription] = []
        self._last_request, self._next_preview = float("-inf"), 0.0

    def update(self, **changes: Any) -> Job:
        """Change the job; everyone is told."""
        with self.lock:
            self.job = replace(self.job, **changes)
            self._notify()
            return self.job

    def publish_preview(self, make: Callable[[], Sequence[Image.Image]]) -> None:
        """Let `make` draw a preview if somebody wants one now.

        Every 200 ms at most, and so that previews take a fifth of the time at most.
        """
        started = time.monotonic()
        if not self._is_preview_due(started):
            return
        pictures = tuple(make())
        ended = time.monotonic()
        with self.lock:
            self._next_preview = ended + max(PREVIEW_INTERVAL, 4 * (ended - started))
            self.preview = pictures
            for watch in self._subscriptions:
                if watch.partial_due:
                    watch.partial_events.append(JobEvent("preview", self.job, pictures))
                watch.partial_due, watch.preview_unread = False, watch.previews
            self._notify()

    def request_preview(self) -> tuple[Image.Image, ...]:
        """The latest preview; asks for newer ones for a few seconds."""
        self._last_request = time.monotonic()
        return self.preview

    def close(self) -> None:
        """Nothing more will come, though the job may not be over."""
        with self.lock:
            self.is_closed = True
            self._notify()

    def subscribe(self, wake: Callable[[], object], *, previews: bool = True, partials: int = 0) -> Subscription:
        """Be told by `wake`, in any thread, that `take` has something new."""
        watch = Subscription(self, wake, previews=previews, partials=partials)
        with self.lock:
            self._subscriptions.append(watch)
        return watch

    def unsubscribe(self, watch: Subscription) -> None:
        with self.lock, contextlib.suppress(ValueError):
            self._subscriptions.remove(watch)

    def _is_preview_due(self, now: float) -> bool:
        with self.lock:
            for watch in self._subscriptions:
                parts = int(self.job.progress * (watch.partials + 1))
                if watch.partials and watch.parts < parts <= watch.partials:
                    watch.parts, watch.partial_due = parts, True
            watched = any(w.previews for w in self._subscriptions) or now - self._last_request < REQUEST_DURATION
            return any(w.partial_due for w in self._subscriptions) or (watched and now >= self._next_preview)

    def _notify(self) -> None:
        self.version += 1
        for watch in self._subscriptions:
            watch.wake()


class Subscription:
    """One watcher's place in a feed.

    `previews` asks for previews as often as they are to be had, `partials` for that many, spread evenly.
    """

    def __init__(self, feed: JobChannel, wake: Callable[[], object], *, previews: bool = True, partials: int = 0):
        self.channel, self.wake, self.previews, self.partials = feed, wake, previews, partials
        self.parts, self.partial_due, self.preview_unread = 0, False, False
        self.partial_events: deque[JobEvent] = deque()  # partials, which are never missed
        self._seen = 0

    def next_event(self) -> JobEvent | None:
        """What is new since the last time, in one event; None if nothing is."""
        feed = self.channel
        with feed.lock:
            if self.partial_events:
                return self.partial_events.popleft()
            if self._seen == feed.version:
                return None
            self._seen = feed.version
            job, fresh, self.preview_unread = feed.job, self.preview_unread, False
            preview = feed.preview if fresh else ()
            if job.is_finished:
                assert job.state not in ("queued", "running")
                return JobEvent(job.state, job)
            if feed.is_closed:
                return JobEvent("kept", job)
            if preview:
                return JobEvent("preview", job, preview)
            return JobEvent("queued" if job.state == "queued" else "progress", job)

    def close(self) -> None:
        self.channel.unsubscribe(self)
