"""Publishes one job's progress from the worker thread to its subscribers.

A slow subscriber misses steps and previews, but never the end: it always gets the latest state.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from PIL import Image

from .job import Job

PREVIEW_INTERVAL = 0.2  # seconds
REQUEST_DURATION = 3.0  # seconds for which one request for a preview asks for new ones


@dataclass(frozen=True)
class JobEvent:
    """A change of a job.

    The last event is `done`, `failed`, `cancelled`, or `requeued`: the server stops, and the job continues when it
    starts again.
    """

    kind: Literal["queued", "progress", "preview", "done", "failed", "cancelled", "requeued"]
    job: Job
    preview: tuple[Image.Image, ...] = ()

    @property
    def is_last(self) -> bool:
        return self.kind == "requeued" or self.job.is_finished


class JobChannel:
    """The present state of a job that is not finished, and its subscribers. Safe to use from any thread."""

    def __init__(self, job: Job):
        self.job, self.preview = job, ()
        self.cancel_requested = self.requeue_requested = self.skip_requested = self.is_closed = False
        self.lock = threading.Lock()
        self.version = 1
        self._subscriptions: list[Subscription] = []
        self._last_request, self._next_preview = float("-inf"), 0.0

    def update(self, **changes: Any) -> Job:
        """Change fields of the job and notify all subscribers."""
        with self.lock:
            self.job = replace(self.job, **changes)
            self._notify()
            return self.job

    def publish_preview(self, render: Callable[[], Sequence[Image.Image]]) -> None:
        """Call `render` and publish its images if somebody expects a preview now.

        At most every 200 ms, and so that previews take at most a fifth of the time.
        """
        started = time.monotonic()
        if not self._is_preview_due(started):
            return
        images = tuple(render())
        ended = time.monotonic()
        with self.lock:
            self._next_preview = ended + max(PREVIEW_INTERVAL, 4 * (ended - started))
            self.preview = images
            for subscription in self._subscriptions:
                if subscription.partial_due:
                    subscription.partial_events.append(JobEvent("preview", self.job, images))
                subscription.partial_due, subscription.preview_unread = False, subscription.previews
            self._notify()

    def request_preview(self) -> tuple[Image.Image, ...]:
        """The latest preview; asks for newer ones for a few seconds."""
        self._last_request = time.monotonic()
        return self.preview

    def close(self) -> None:
        """End all subscriptions, though the job may not be finished."""
        with self.lock:
            self.is_closed = True
            self._notify()

    def subscribe(self, wake: Callable[[], object], *, previews: bool = True, partials: int = 0) -> Subscription:
        """Subscribe: `wake` is called, in any thread, when `next_event` has something new.

        `previews` asks for previews as often as there are any, `partials` for that many, spread evenly.
        """
        subscription = Subscription(self, wake, previews=previews, partials=partials)
        with self.lock:
            self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        with self.lock, contextlib.suppress(ValueError):
            self._subscriptions.remove(subscription)

    @property
    def subscribers(self) -> int:
        """How many subscriptions there are."""
        return len(self._subscriptions)

    @property
    def is_delivered(self) -> bool:
        """Whether there are subscribers, and all have read the latest state."""
        with self.lock:
            return bool(self._subscriptions) and all(s.seen == self.version for s in self._subscriptions)

    def _is_preview_due(self, now: float) -> bool:
        with self.lock:
            for subscription in self._subscriptions:
                part = int(self.job.progress * (subscription.partials + 1))
                if subscription.partials and subscription.part < part <= subscription.partials:
                    subscription.part, subscription.partial_due = part, True
            is_requested = now - self._last_request < REQUEST_DURATION
            is_watched = is_requested or any(s.previews for s in self._subscriptions)
            return any(s.partial_due for s in self._subscriptions) or (is_watched and now >= self._next_preview)

    def _notify(self) -> None:
        self.version += 1
        for subscription in self._subscriptions:
            subscription.wake()


class Subscription:
    """One subscriber of a channel; the channel's lock protects it."""

    def __init__(self, channel: JobChannel, wake: Callable[[], object], *, previews: bool, partials: int):
        self.channel, self.wake, self.previews, self.partials = channel, wake, previews, partials
        self.part, self.partial_due, self.preview_unread = 0, False, False
        self.partial_events: deque[JobEvent] = deque()  # these are never missed
        self.seen = 0  # the version of the channel that was read last

    def next_event(self) -> JobEvent | None:
        """What is new since the last call, in one event; None if nothing is."""
        channel = self.channel
        with channel.lock:
            if self.partial_events:
                return self.partial_events.popleft()
            if self.seen == channel.version:
                return None
            self.seen = channel.version
            job, unread, self.preview_unread = channel.job, self.preview_unread, False
            if job.is_finished:
                assert job.state not in ("queued", "running")
                return JobEvent(job.state, job)
            if channel.is_closed:
                return JobEvent("requeued", job)
            if unread and channel.preview:
                return JobEvent("preview", job, channel.preview)
            return JobEvent("queued" if job.state == "queued" else "progress", job)

    def close(self) -> None:
        self.channel.unsubscribe(self)


def watch(channel: JobChannel, *, previews: bool = True) -> Generator[JobEvent]:
    """Yield events until the last, blocking."""
    changed = threading.Event()
    with contextlib.closing(channel.subscribe(changed.set, previews=previews)) as subscription:
        while True:
            changed.clear()
            if event := subscription.next_event():
                yield event
                if event.is_last:
                    return
            else:
                changed.wait()


async def watch_async(channel: JobChannel, *, previews: bool = True, partials: int = 0) -> AsyncGenerator[JobEvent]:
    """Yield events until the last, for a coroutine."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended before the job
            loop.call_soon_threadsafe(changed.set)

    with contextlib.closing(channel.subscribe(wake, previews=previews, partials=partials)) as subscription:
        while True:
            changed.clear()
            if event := subscription.next_event():
                yield event
                if event.is_last:
                    return
            else:
                await changed.wait()
