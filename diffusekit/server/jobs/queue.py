"""The queue: every front end submits its jobs here, one worker runs them, everyone may watch.

    jobs = Jobs(ServeSettings()).open()
    job = jobs.submit("generate", {"prompt": "a red cat", "steps": 8})
    for event in jobs.watch(job.id):
        print(event.kind, event.job.progress)
    jobs.close(30)

A job is on disk before `submit` returns. A job that was queued or running when the process ended is queued again at
the next start, and continues after its last finished image.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ...errors import DiffusekitError, Overloaded, UsageError
from ...settings import ServeSettings
from ..errors import JobNotFound, ShuttingDown
from ..models import ServerModels
from .events import JobChannel, JobEvent, watch, watch_async
from .job import Failure, Job, State
from .kinds import JOB_TYPES
from .statistics import Statistics
from .store import JobStore
from .worker import Worker

log = logging.getLogger(__name__)
MAX_ATTEMPTS = 2  # a job that was running this many times when the process died is not started again
REQUEUE_TIMEOUT = 5.0  # seconds of `close` that are left for the running job to stop after a step


class Jobs:
    """The jobs of one server, and the worker that runs them. Safe to use from any thread."""

    def __init__(self, settings: ServeSettings):
        """Nothing happens before `open`."""
        self.settings = settings
        self.outputs = Path(settings.outputs).resolve()
        self.embeddings, self.state = Path(settings.embeddings), Path(settings.state)
        self.loras = Path(settings.loras)
        self.models, self.statistics = ServerModels(settings), Statistics()
        self._queue: deque[JobChannel] = deque()
        self._channels: dict[str, JobChannel] = {}  # of jobs that are not finished
        self._running: JobChannel | None = None
        self._reserved = 0  # places in the queue for jobs that are being checked and saved
        self._changed = threading.Condition(threading.RLock())
        self._is_stopping = False
        self._worker = Worker(self, self.models, self.statistics)

    def open(self) -> Jobs:
        """Continue what an earlier process left, and start. Raises `UsageError` while another server runs."""
        self.outputs.mkdir(parents=True, exist_ok=True)
        self.store = JobStore(Path(self.settings.state) / "jobs.sqlite")
        self.store.prune()
        for job in self.store.list_unfinished():
            channel = JobChannel(job)
            if job.state == "running" and job.attempts >= MAX_ATTEMPTS:
                reason = f"the server ended {job.attempts} times while it ran this job"
                self.end_job(channel, "failed", Failure(1, reason))
                continue
            self.save(channel.update(state="queued", step=0, steps=0, note=""))
            self._add(channel)
        self._worker.start()
        return self

    # --- submit --------------------------------------------------------------------------------

    def submit(self, kind: str, settings: Mapping[str, Any], *, owner: str = "", warnings: Sequence[str] = ()) -> Job:
        """Queue a job: `JOB_TYPES` says which kinds there are and what settings they take.

        `owner` names the front end or visitor, `warnings` say what of the request has no effect. Raises `Overloaded`
        when the queue is full, `ShuttingDown` when the server stops, `UsageError` for invalid settings.
        """
        self._reserve()
        return self._submit(kind, settings, owner, warnings)

    async def submit_async(
        self, kind: str, settings: Mapping[str, Any], *, owner: str = "", warnings: Sequence[str] = ()
    ) -> Job:
        """`submit` for coroutines: a full queue refuses at once, the rest waits for the disk.

        If the caller is cancelled while it waits, so is the job.
        """
        self._reserve()
        submission = asyncio.ensure_future(asyncio.to_thread(self._submit, kind, settings, owner, warnings))
        try:
            return await asyncio.shield(submission)
        except asyncio.CancelledError:
            submission.add_done_callback(self._cancel_submission)
            raise

    def _cancel_submission(self, submission: asyncio.Future[Job]) -> None:
        if not submission.cancelled() and submission.exception() is None:
            self.cancel(submission.result().id)

    def check_capacity(self) -> None:
        """Raise `Overloaded` when no more jobs may wait, `ShuttingDown` when the server stops."""
        if self._is_stopping:
            raise ShuttingDown("the server is stopping", "try again when it is back", retry_after=30)
        if len(self._queue) + self._reserved >= self.settings.queue:
            raise Overloaded(
                f"the queue is full: {self.settings.queue} jobs are waiting",
                "try again later",
                retry_after=self.statistics.estimate_wait(self.running_job),
            )

    def _reserve(self) -> None:
        """Reserve a place in the queue, or raise what `check_capacity` raises."""
        with self._changed:
            self.check_capacity()
            self._reserved += 1

    def _submit(self, kind: str, settings: Mapping[str, Any], owner: str, warnings: Sequence[str]) -> Job:
        """Check a job, save it, and put it in its reserved place."""
        channel: JobChannel | None = None
        try:
            if kind not in JOB_TYPES:
                raise UsageError(f"kind {kind!r} is not a kind of job", f"kinds: {', '.join(JOB_TYPES)}")
            model = self.models.default if settings.get("model") is None else settings["model"]
            complete = JOB_TYPES[kind].check({**settings, "model": model}, self.settings)
            job = Job(secrets.token_hex(8), kind, complete, owner, created=time.time(), warnings=tuple(warnings))
            self.save(job)
            channel = JobChannel(job)
            return job
        finally:
            with self._changed:
                self._reserved -= 1
                if channel is not None:
                    self._add(channel)
                    self._changed.notify()

    def _add(self, channel: JobChannel) -> None:
        self._channels[channel.job.id] = channel
        self._queue.append(channel)

    # --- watch and control ---------------------------------------------------------------------

    def watch(self, job_id: str, *, previews: bool = True) -> Generator[JobEvent]:
        """Yield a job's events as they come, blocking, until the last one. To stop watching does not cancel."""
        return watch(self.channel(job_id), previews=previews)

    def watch_async(self, job_id: str, *, previews: bool = True, partials: int = 0) -> AsyncGenerator[JobEvent]:
        """`watch` for coroutines; `partials` asks for that many previews, spread evenly."""
        return watch_async(self.channel(job_id), previews=previews, partials=partials)

    def channel(self, job_id: str) -> JobChannel:
        """The channel of a job; a finished job gets a new one. Raises `JobNotFound`."""
        if channel := self._channels.get(job_id):
            return channel
        job = self.store.get(job_id)
        if job is None:
            raise JobNotFound(f"no job has the id {job_id[:40]!r}", "old jobs are deleted")
        return JobChannel(job)

    def cancel(self, job_id: str) -> Job:
        """Stop a job: at once if it waits, after the present step if it runs. Finished images stay."""
        channel = self.channel(job_id)
        with self._changed:
            was_waiting = channel in self._queue
            if was_waiting:
                self._queue.remove(channel)
            channel.cancel_requested = True
        if was_waiting:
            self.end_job(channel, "cancelled")
        return channel.job

    def skip(self, job_id: str) -> Job:
        """Skip the image that a running job generates, and continue with its next."""
        channel = self.channel(job_id)
        channel.skip_requested = channel.job.state == "running"
        return channel.job

    def forget(self, job_id: str) -> None:
        """Delete a finished job from the list; its files stay."""
        self.store.delete(job_id)

    def request_preview(self) -> tuple[Image.Image, ...]:
        """The running job's latest preview; the request asks for new ones for a few seconds."""
        channel = self._running
        return channel.request_preview() if channel and not channel.job.is_finished else ()

    # --- look up -------------------------------------------------------------------------------

    def get(self, job_id: str) -> Job:
        """A job as it is now; raises `JobNotFound`."""
        return self.channel(job_id).job

    def list(self, limit: int = 100) -> Sequence[Job]:
        """The newest jobs, newest first, whatever their state."""
        newest = self.store.list_newest(limit)
        return [channel.job if (channel := self._channels.get(job.id)) else job for job in newest]

    @property
    def running_job(self) -> Job | None:
        channel = self._running
        return channel.job if channel and not channel.job.is_finished else None

    @property
    def queue_length(self) -> int:
        """How many jobs wait."""
        return len(self._queue)

    @property
    def unfinished(self) -> Sequence[JobChannel]:
        """The channels of all jobs that wait or run."""
        return tuple(self._channels.values())

    def count_ahead(self, job_id: str) -> int:
        """How many jobs come before this one."""
        ids = [channel.job.id for channel in tuple(self._queue)]
        return ids.index(job_id) + (self._running is not None) if job_id in ids else 0

    @property
    def is_ready(self) -> bool:
        """Whether a model is in memory and jobs are accepted."""
        return self.models.is_loaded and not self._is_stopping

    # --- shutdown ------------------------------------------------------------------------------

    def stop_accepting(self) -> None:
        """Accept no more jobs; `close` will follow."""
        self._is_stopping = True

    def close(self, timeout: float) -> None:
        """Let the running job end, or requeue it after a step when the time is over; keep the queue."""
        self.stop_accepting()
        with self._changed:
            self._changed.notify_all()
        self._worker.join(timeout - REQUEUE_TIMEOUT)
        if (channel := self._running) and not channel.cancel_requested:
            channel.requeue_requested = channel.cancel_requested = True
            has_ended = self._worker.join(min(timeout, REQUEUE_TIMEOUT))
            if not has_ended and not channel.job.is_finished:  # in the middle of a long step
                self.stop_job(channel)
        for channel in self.unfinished:
            channel.close()
        self.store.close()

    # --- for the worker ------------------------------------------------------------------------

    def take(self) -> JobChannel | None:
        """Wait for the next job, which then is the running one; None when the server stops."""
        with self._changed:
            self._running = None
            while not self._queue and not self._is_stopping:
                self._changed.wait()
            if self._is_stopping:
                return None
            self._running = self._queue.popleft()
            return self._running

    def save(self, job: Job) -> None:
        """Write a job to disk as it is now."""
        self.store.save(job)

    def stop_job(self, channel: JobChannel) -> None:
        """End a job that a client cancelled, or requeue it because the server stops."""
        if channel.requeue_requested:
            self.save(channel.update(state="queued", attempts=channel.job.attempts - 1))
        else:
            self.end_job(channel, "cancelled")

    def end_job(self, channel: JobChannel, state: State, failure: Failure | None = None) -> None:
        """Write down how a job ended, and tell its subscribers."""
        job = channel.update(state=state, finished=time.time(), failure=failure, note="")
        self.statistics.count_job(job)
        try:
            self.save(job)
        except DiffusekitError:
            log.exception("the end of job %s could not be saved", job.id)
        self._channels.pop(job.id, None)
