"""Counters of one server: finished jobs and images, and the seconds that the worker spent on them."""

from __future__ import annotations

from collections import Counter

from .job import Job


class Statistics:
    """Counters since the start of the server; the worker writes them, everyone may read them.

    `jobs` counts jobs by how they ended. `busy_seconds` is the time spent on all jobs, `image_seconds` on jobs that
    generate images.
    """

    def __init__(self):
        self.jobs: Counter[str] = Counter()
        self.images = 0
        self.busy_seconds = self.image_seconds = 0.0

    def count_job(self, job: Job) -> None:
        """Count a job that has ended, and its images."""
        self.jobs[job.state] += 1
        self.images += len(job.pictures)

    def add_time(self, kind: str, seconds: float) -> None:
        """Add the time that was spent on a job of a kind."""
        self.busy_seconds += seconds
        self.image_seconds += seconds if kind == "generate" else 0.0

    @property
    def seconds_per_image(self) -> float:
        """Mean time of an image; 0 before the first."""
        return self.image_seconds / self.images if self.images else 0.0

    def estimate_wait(self, running: Job | None) -> int:
        """Seconds (1 to 600) until the running job may have ended and the queue has a free place."""
        images = running.settings.get("images", 1) if running else 1
        return max(1, min(round((self.seconds_per_image or 1.0) * images), 600))
