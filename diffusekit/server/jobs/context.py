"""What a running job works with: its settings, its folders, and methods that report progress."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from PIL import Image

from ...errors import OutOfMemory
from .events import JobChannel
from .job import Job

log = logging.getLogger(__name__)


class JobContext:
    """One job while the worker runs it."""

    def __init__(
        self,
        channel: JobChannel,
        save: Callable[[Job], object],
        *,
        outputs: Path,
        embeddings: Path,
        loras: Path,
        state: Path,
    ):
        """`save` writes the job to disk."""
        self.channel, self.outputs, self.state = channel, outputs, state
        self.embeddings, self.loras = embeddings, loras
        self._save, self._previews = save, True

    @property
    def job(self) -> Job:
        return self.channel.job

    def set_note(self, text: str) -> None:
        """Say in a few words what happens now."""
        self.channel.update(note=text)

    def report_progress(self, step: int, steps: int) -> None:
        self.channel.update(step=step, steps=steps, note="")

    def show_preview(self, render: Callable[[], Sequence[Image.Image]]) -> None:
        """Publish what `render` returns if somebody watches; otherwise it is not called."""
        try:
            if self._previews:
                self.channel.publish_preview(render)
        except (OutOfMemory, RuntimeError) as error:
            self._previews = False
            log.warning("no previews of job %s: %s", self.job.id, error)

    def add_warnings(self, sentences: Iterable[str]) -> None:
        """Record what has no effect, once each."""
        warnings = tuple(dict.fromkeys((*self.job.warnings, *sentences)))
        if warnings != self.job.warnings:
            self.channel.update(warnings=warnings)

    def next_image_path(self, seed: int, words: str) -> Path:
        """The path of the next image. It is the same when the job runs again, so that no image is there twice."""
        job = self.job
        day, clock = time.strftime("%Y-%m-%d %H%M%S", time.localtime(job.created)).split()
        name = f"{clock}-{job.id[:8]}-{job.passed + 1:02}-{seed}-{words or 'picture'}.png"
        return self.outputs / day / name

    def add_image(self, path: Path) -> None:
        """Record a finished image; after a restart the job continues behind it."""
        name = path.relative_to(self.outputs).as_posix()
        self._save(self.channel.update(pictures=(*self.job.pictures, name), passed=self.job.passed + 1))

    def flag_image(self) -> None:
        """Record an image that the model's safety checker flagged, which is not written."""
        self._save(self.channel.update(flagged=self.job.flagged + 1, passed=self.job.passed + 1))

    def take_skip_request(self) -> bool:
        """Whether, since the last call, a client asked to skip the current image."""
        requested, self.channel.skip_requested = self.channel.skip_requested, False
        return requested

    def skip_images(self, count: int) -> None:
        self.channel.update(passed=self.job.passed + count)
