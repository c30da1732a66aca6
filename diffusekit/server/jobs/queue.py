"""The queue: every front end hands its work in here, one thread does it, everyone may watch.

    jobs = Jobs(ServeSettings()).open()
    job = jobs.submit("generate", {"prompt": "a red cat", "steps": 8})
    for event in jobs.watch(job.id):
        print(event.kind, event.job.progress)
    jobs.close(30)

Jobs are on disk before `submit` returns. What was queued or running when the process ended is queued
again when it starts, and goes on behind its last finished picture. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ... import models
from ...errors import DiffusekitError, Overloaded, UsageError
from ...settings import ServeSettings
from .context import JobContext
from .events import JobChannel, JobEvent
from .following import watch, watch_async
from .job import Failure, Job, State
from .kinds import JOB_TYPES, known_models
from .store import JobStore

log = logging.getLogger(__name__)
MAX_ATTEMPTS = 2  # a job that was being done when the process died so often is not begun again
REQUEUE_TIMEOUT = 5.0  # seconds of `close` left for the running job to stop after a step


class JobNotFound(UsageError):
    """There is no job of that id, or it is so old that it is forgotten."""

    status = 404


class ShuttingDown(Overloaded):
    """The server is about to end and takes no more work."""

    status = 503


class Jobs:
    """One queue and its worker. Safe to use from any thread."""

    def __init__(self, settings: ServeSettings):
        """Nothing is done before `open`."""
        self.settings, self.model = settings, settings.model
        self.outputs = Path(settings.outputs).resolve()
        self.embeddings = Path(settings.embeddings)
        self.counts: Counter[str] = Counter()  # pictures, and jobs by how they ended
        self.seconds = 0.0  # spent on jobs
        self.drawing = 0.0  # of these, on jobs that make pictures
        self._queue: deque[JobChannel] = deque()
        self._live: dict[str, JobChannel] = {}
        self._running: JobChannel | None = None
        self._entering = 0  # jobs on their way into the queue
        self._changed = threading.Condition(threading.RLock())
        self._stopping = self._kept = self._loaded = False
        self._thread = threading.Thread(target=self._work, name="worker", daemon=True)

    def open(self) -> Jobs:
        """Take up what an earlier process left, and begin. Raises `UsageError` while another runs."""
        self.outputs.mkdir(parents=True, exist_ok=True)
        self._store = JobStore(Path(self.settings.state) / "jobs.sqlite")
        self._store.prune()
        for job in self._store.list_unfinished():
            feed = JobChannel(job)
            if job.state == "running" and job.attempts >= MAX_ATTEMPTS:
                why = Failure(1, f"the server ended {job.attempts} times while it did this job")
                self._end(feed, "failed", why)
                continue
            self._store.save(feed.update(state="queued", step=0, steps=0, note=""))
            self._live[job.id] = feed
            self._queue.append(feed)
        self._thread.start()
        return self

    # --- what front ends use ----------------------------------------------------------------

    def submit(self, kind: str, settings: Mapping[str, Any], *, owner: str = "") -> Job:
        """Queue a job: `JOB_TYPES` says which kinds there are and what settings they take.

        `owner` says which front end or visitor it is for. Raises `Overloaded` when the queue is full,
        `ShuttingDown` when the server ends, `UsageError` for settings that cannot be used.
        """
        self._enter()
        return self._submit(kind, settings, owner)

    async def submit_async(self, kind: str, settings: Mapping[str, Any], *, owner: str = "") -> Job:
        """`submit` for coroutines: a full queue refuses at once, the rest waits for the disk.

        Who leaves while it waits leaves no job behind.
        """
        self._enter()
        entering = asyncio.ensure_future(asyncio.to_thread(self._submit, kind, settings, owner))
        try:
            return await asyncio.shield(entering)
        except asyncio.CancelledError:
            entering.add_done_callback(self._cancel_unwanted)
            raise

    def _cancel_unwanted(self, entered: asyncio.Future[Job]) -> None:
        if not entered.cancelled() and entered.exception() is None:
            self.cancel(entered.result().id)

    def check_capacity(self) -> None:
        """Raises `Overloaded` when no more jobs may wait, `ShuttingDown` when the server ends."""
        if self._stopping:
            raise ShuttingDown("the server is stopping", "try again when it is back", retry_after=30)
        if len(self._queue) + self._entering >= self.settings.queue:
            raise Overloaded(
                f"{self.settings.queue} jobs are waiting, and no more may",
                "try again later",
                retry_after=self.retry_after(),
            )

    def _enter(self) -> None:
        """Hold a place in the queue, or raise what `room` raises."""
        with self._changed:
            self.check_capacity()
            self._entering += 1

    def _submit(self, kind: str, settings: Mapping[str, Any], owner: str) -> Job:
        """Check a job, write it down, and put it in the place that is held for it."""
        feed: JobChannel | None = None
        try:
            if kind not in JOB_TYPES:
                raise UsageError(f"kind {kind!r} is none of the jobs", f"kinds: {', '.join(JOB_TYPES)}")
            chosen = {"model": self.model if settings.get("model") is None else settings["model"]}
            complete = JOB_TYPES[kind].check(dict(settings) | chosen, self.settings)
            job = Job(secrets.token_hex(8), kind, complete, owner, created=time.time())
            self._store.save(job)
            feed = JobChannel(job)
            return job
        finally:
            with self._changed:
                self._entering -= 1
                if feed is not None:
                    self._live[feed.job.id] = feed
                    self._queue.append(feed)
                    self._changed.notify()

    def watch(self, job_id: str, *, previews: bool = True) -> Generator[JobEvent]:
        """Events of a job as they come, blocking, until one is the last. Leaving does not cancel."""
        return watch(self._channel(job_id), previews=previews)

    def watch_async(self, job_id: str, *, previews: bool = True, partials: int = 0) -> AsyncGenerator[JobEvent]:
        """`watch` for coroutines; `partials` asks for that many previews, spread evenly."""
        return watch_async(self._channel(job_id), previews=previews, partials=partials)

    def cancel(self, job_id: str) -> Job:
        """Stop a job, at once if it waits, after the present step if it runs; keep what is finished."""
        feed = self._channel(job_id)
        with self._changed:
            waited = feed in self._queue
            if waited:
                self._queue.remove(feed)
            feed.cancel_requested = True
        if waited:
            self._end(feed, "cancelled")
        return feed.job

    def skip(self, job_id: str) -> Job:
        """Leave out the picture that a running job makes, and go on with its next."""
        feed = self._channel(job_id)
        feed.skip_requested = feed.job.state == "running"
        return feed.job

    def forget(self, job_id: str) -> None:
        """Strike a job that is over off the list; whatever it made stays."""
        self._store.delete(job_id)

    def get(self, job_id: str) -> Job:
        """A job as it is now; raises `JobNotFound`."""
        return self._channel(job_id).job

    def list(self, limit: int = 100) -> Sequence[Job]:
        """The newest jobs, newest first, whatever their state."""
        return [feed.job if (feed := self._live.get(job.id)) else job for job in self._store.list_newest(limit)]

    @property
    def running_job(self) -> Job | None:
        feed = self._running
        return feed.job if feed and not feed.job.is_finished else None

    @property
    def queue_length(self) -> int:
        """How many jobs are queued."""
        return len(self._queue)

    def count_ahead(self, job_id: str) -> int:
        """How many jobs come before this one."""
        ids = [feed.job.id for feed in tuple(self._queue)]
        return ids.index(job_id) + (self._running is not None) if job_id in ids else 0

    def request_preview(self) -> tuple[Image.Image, ...]:
        """The running job's latest preview; looking asks for new ones for a few seconds."""
        feed = self._running
        return feed.request_preview() if feed and not feed.job.is_finished else ()

    def retry_after(self) -> int:
        """Seconds after which a place in the queue may be free."""
        running = self.running_job
        pictures = running.settings.get("images", 1) if running else 1
        return max(1, min(round((self.seconds_per_image or 1.0) * pictures), 600))

    @property
    def seconds_per_image(self) -> float:
        """Seconds a picture took, on average; 0 before the first."""
        return self.drawing / self.counts["pictures"] if self.counts["pictures"] else 0.0

    @property
    def is_ready(self) -> bool:
        """Whether the model is in memory and work is taken."""
        return self._loaded and not self._stopping

    def models(self) -> dict[str, str]:
        """What requests may say for `model`, and the names that `models.load` takes."""
        return known_models(self.settings)

    def stop_accepting(self) -> None:
        """Take no more work; `close` will follow."""
        self._stopping = True

    def close(self, timeout: float) -> None:
        """Let the running job end, or put it down after a step when time runs out; keep the queue."""
        self.stop_accepting()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(max(timeout - REQUEUE_TIMEOUT, 0))
        if (feed := self._running) and not feed.cancel_requested:
            self._kept = feed.cancel_requested = True
            self._thread.join(min(timeout, REQUEUE_TIMEOUT))
            if self._thread.is_alive() and not feed.job.is_finished:  # in the middle of a long step
                self._stop_job(feed)
        for feed in tuple(self._live.values()):
            feed.close()
        self._store.close()

    # --- the worker -------------------------------------------------------------------------

    def _channel(self, job_id: str) -> JobChannel:
        if feed := self._live.get(job_id):
            return feed
        job = self._store.get(job_id)
        if job is None:
            raise JobNotFound(f"there is no job {job_id[:40]!r}", "it may be forgotten")
        return JobChannel(job)

    def _work(self) -> None:
        """The worker's life: the model first, then job after job."""
        try:
            models.load(self.model, self.settings.device, self.settings.dtype)
            self._loaded = True
        except DiffusekitError as error:
            log.error("%s; %s", error.message, error.hint)
        except Exception:
            log.exception("the model %s cannot be loaded", self.model)
        while feed := self._next():
            self._run_job(feed)
            with self._changed:
                self._running = None

    def _next(self) -> JobChannel | None:
        with self._changed:
            while not self._queue and not self._stopping:
                self._changed.wait()
            if self._stopping:
                return None
            self._running = self._queue.popleft()
            return self._running

    def _run_job(self, feed: JobChannel) -> None:
        """One job from its beginning to whatever end; nothing it raises gets out."""
        started = time.time()
        try:
            job = feed.update(state="running", started=started, attempts=feed.job.attempts + 1)
            self._store.save(job)
            work = JobContext(feed, self.outputs, self.embeddings, self._store.save)
            with contextlib.closing(JOB_TYPES[job.kind].run(work)) as steps:
                for _ in steps:
                    if feed.cancel_requested:
                        self._stop_job(feed)
                        break
                else:
                    self._end(feed, "done")
            self._loaded = True
        except DiffusekitError as error:
            self._end(feed, "failed", Failure(error.exit_code, error.message, error.hint))
        except Exception as error:
            log.exception("job %s failed", feed.job.id)
            self._end(feed, "failed", Failure(1, f"unexpected: {type(error).__name__}"))
        spent = time.time() - started
        self.seconds += spent
        self.drawing += spent if feed.job.kind == "generate" else 0.0

    def _stop_job(self, feed: JobChannel) -> None:
        """Cancelled by a client, or put back because the server stops."""
        if self._kept:
            self._store.save(feed.update(state="queued", attempts=feed.job.attempts - 1))
        else:
            self._end(feed, "cancelled")

    def _end(self, feed: JobChannel, state: State, failure: Failure | None = None) -> None:
        job = feed.update(state=state, finished=time.time(), failure=failure, note="")
        self.counts[state] += 1
        self.counts["pictures"] += len(job.pictures)
        try:
            self._store.save(job)
        except DiffusekitError:
            log.exception("the end of job %s is not written down", job.id)
        self._live.pop(job.id, None)
