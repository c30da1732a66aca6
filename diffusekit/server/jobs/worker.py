"""The worker: one thread that loads the model, then runs one job after the other."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from pathlib import Path
from typing import Protocol

from ...errors import DiffusekitError
from ..models import ServerModels
from .context import JobContext
from .events import JobChannel
from .job import Failure, Job, State
from .kinds import JOB_TYPES
from .statistics import Statistics

log = logging.getLogger(__name__)


class JobSource(Protocol):
    """Where a worker gets its jobs from, and reports how they end."""

    outputs: Path
    embeddings: Path
    state: Path
    loras: Path

    def take(self) -> JobChannel | None: ...

    def save(self, job: Job) -> None: ...

    def stop_job(self, channel: JobChannel) -> None: ...

    def end_job(self, channel: JobChannel, state: State, failure: Failure | None = None) -> None: ...


class Worker:
    """Runs the jobs of `source` in a thread of its own, until `source.take()` returns None."""

    def __init__(self, source: JobSource, models: ServerModels, statistics: Statistics):
        self._source, self._models, self._statistics = source, models, statistics
        self._thread = threading.Thread(target=self.run, name="worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout: float) -> bool:
        """Wait for the end of the thread; return whether it has ended."""
        self._thread.join(max(timeout, 0))
        return not self._thread.is_alive()

    def run(self) -> None:
        """The thread's work: the model first, then job after job."""
        try:
            self._models.load_default()
        except DiffusekitError as error:
            log.error("%s; %s", error.message, error.hint)
        except Exception:
            log.exception("the model %s cannot be loaded", self._models.default)
        while channel := self._source.take():
            self._run_job(channel)

    def _run_job(self, channel: JobChannel) -> None:
        """Run one job to its end; its errors end the job only."""
        started = time.time()
        try:
            job = channel.update(state="running", started=started, attempts=channel.job.attempts + 1)
            self._source.save(job)
            names = ("outputs", "embeddings", "loras", "state")
            folders = {name: getattr(self._source, name) for name in names}
            context = JobContext(channel, self._source.save, **folders)
            with contextlib.closing(JOB_TYPES[job.kind].run(context)) as steps:
                for _ in steps:
                    if channel.cancel_requested:
                        self._source.stop_job(channel)
                        break
                else:
                    self._source.end_job(channel, "done")
            self._models.is_loaded = True
        except DiffusekitError as error:
            self._source.end_job(channel, "failed", Failure(error.exit_code, error.message, error.hint))
        except Exception as error:
            log.exception("job %s failed", channel.job.id)
            self._source.end_job(channel, "failed", Failure(1, f"unexpected: {type(error).__name__}"))
        self._statistics.add_time(channel.job.kind, time.time() - started)
