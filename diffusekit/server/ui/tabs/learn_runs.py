"""The training runs that the Learn tab offers: jobs of the queue merged with the run folders on disk."""

from __future__ import annotations

import time
from collections.abc import Sequence

from .... import embeddings
from ....errors import UsageError
from ....inversion.run_folder import RunFolder, run_folders
from ...jobs.job import Job
from ...jobs.queue import Jobs

MAX_JOBS = 300  # the newest jobs that are searched for runs


class TrainingRuns:
    """The training runs of one server."""

    def __init__(self, jobs: Jobs):
        self.jobs = jobs
        self._first_seen: dict[str, tuple[int, float]] = {}  # step and time when a job was first seen to train

    def folder(self, name: str) -> RunFolder:
        return RunFolder(self.jobs.embeddings, name)

    def list_jobs(self) -> Sequence[Job]:
        """Training jobs, newest first."""
        return [job for job in self.jobs.list(MAX_JOBS) if job.kind == "invert"]

    def find_job(self, name: str) -> Job | None:
        """The newest job of a run."""
        return next((job for job in self.list_jobs() if job.settings["name"] == name), None)

    def check_idle(self, name: str) -> None:
        """Raise `UsageError` while a run of that name is queued or trains."""
        if (job := self.find_job(name)) and not job.is_finished:
            raise UsageError(f"{name} is already being trained", "stop it, or choose another name")

    def names(self) -> list[str]:
        """Runs that can be shown: those of jobs, then those that are only on disk."""
        on_disk = [run.name for run in run_folders(self.jobs.embeddings)]
        newest: dict[str, Job] = {}
        for job in self.list_jobs():
            newest.setdefault(job.settings["name"], job)
        of_jobs = [name for name, job in newest.items() if name in on_disk or job.state != "done"]
        return list(dict.fromkeys([*of_jobs, *(name for name in on_disk if not embeddings.name_error(name))]))

    def seconds_left(self, job: Job | None) -> float | None:
        """Estimate the rest of a run from its speed since it was first seen; None before a second look."""
        if job is None or job.is_finished or not job.step:
            return None
        step, since = self._first_seen.setdefault(job.id, (job.step, time.monotonic()))
        done = job.step - step
        return (time.monotonic() - since) / done * (job.steps - job.step) if done else None
