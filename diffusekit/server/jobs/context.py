"""What a kind of job is given to work with: its settings, and a way to tell how it goes.

Knows no queue and no clients.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from ...errors import OutOfMemory
from .events import JobChannel
from .job import Job

log = logging.getLogger(__name__)


class JobContext:
    """One job in the hands of the worker."""

    def __init__(self, feed: JobChannel, outputs: Path, embeddings: Path, keep: Callable[[Job], object]):
        """`keep` writes the job down."""
        self._feed, self._keep, self._previews = feed, keep, True
        self.outputs, self.embeddings = outputs, embeddings

    @property
    def job(self) -> Job:
        return self._feed.job

    def note(self, text: str) -> None:
        """What goes on, in a few words."""
        self._feed.update(note=text)

    def report_progress(self, step: int, steps: int) -> None:
        self._feed.update(step=step, steps=steps, note="")

    def show_preview(self, make: Callable[[], Sequence[Image.Image]]) -> None:
        """Show what `make` draws, if somebody watches; it is not called otherwise."""
        try:
            if self._previews:
                self._feed.publish_preview(make)
        except (OutOfMemory, RuntimeError) as error:
            self._previews = False
            log.warning("no previews of job %s: %s", self.job.id, error)

    def next_image_path(self, seed: int, words: str) -> Path:
        """Where the next picture goes: the same for the same job, so that a repeated one leaves one."""
        job = self.job
        day, clock = time.strftime("%Y-%m-%d %H%M%S", time.localtime(job.created)).split()
        name = f"{clock}-{job.id[:8]}-{job.passed + 1:02}-{seed}-{words or 'picture'}.png"
        return self.outputs / day / name

    def add_image(self, path: Path) -> None:
        """A picture lies at `path`; a restart goes on behind it."""
        shown = path.relative_to(self.outputs).as_posix()
        self._keep(self._feed.update(pictures=(*self.job.pictures, shown), passed=self.job.passed + 1))

    def take_skip_request(self) -> bool:
        """Whether somebody asked, since the last time, to leave out what is being made."""
        asked, self._feed.skip_requested = self._feed.skip_requested, False
        return asked

    def skip_images(self, pictures: int) -> None:
        self._feed.update(passed=self.job.passed + pictures)
