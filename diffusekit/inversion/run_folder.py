"""The folder of a training run: its log, checkpoints, validation images and report, and the lock of its process.

    embeddings/my_cat.safetensors   the learned token
    embeddings/my_cat/              log.jsonl, checkpoints/, previews/, index.html, strip.webp, .lock

Only this module names these files. Reading takes no lock, so a run can be followed while it trains.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout
from PIL import Image

from .. import atomic, images
from ..errors import DiffusekitError, DiskError, UsageError

INIT_STEP = 0  # the step of the validation images that show the init words
_LOG, _INIT = "log.jsonl", "init"


@dataclass(frozen=True)
class RunLog:
    """The lines of a run's log, in order. Each has a `step`, and the measures that were taken at it."""

    entries: tuple[dict[str, Any], ...] = ()

    @classmethod
    def parse(cls, lines: Iterable[str]) -> Self:
        """Read the lines of a log. A damaged line, such as one that is still being written, is left out."""
        entries = []
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and isinstance(entry.get("step"), int):
                entries.append(entry)
        return cls(tuple(entries))

    @property
    def step(self) -> int:
        """The last step in the log."""
        return max((entry["step"] for entry in self.entries), default=0)

    @property
    def latest(self) -> dict[str, Any]:
        """The newest entry with a loss, or an empty one."""
        return next((entry for entry in reversed(self.entries) if "loss" in entry), {})

    @property
    def baseline(self) -> dict[str, float]:
        """The scores of the init words, and the similarity of the photos to each other ("pairwise")."""
        scores = next((entry["baseline"] for entry in self.entries if entry.get("baseline")), {})
        return {key: value for key, value in scores.items() if _is_finite(value)}

    @property
    def best(self) -> dict[str, Any]:
        """The entry whose vectors are the best so far, or an empty one."""
        return next((entry for entry in reversed(self.entries) if entry.get("best")), {})

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The entries with scores."""
        return [entry for entry in self.entries if "reconstruction" in entry or entry.get("best")]

    def curve(self, measure: str) -> list[tuple[int, float]]:
        """(step, value) wherever a measure was taken and is finite."""
        return [(entry["step"], entry[measure]) for entry in self.entries if _is_finite(entry.get(measure))]


class RunFolder:
    """The files of one run, and the lock that is held from `open` to `close`."""

    def __init__(self, output: Path, name: str):
        """`output` is the folder of learned tokens. Nothing is created before `open`."""
        self.name = name
        self.path = output / name
        self.token = output / f"{name}.safetensors"
        self.checkpoints = self.path / "checkpoints"
        self.report, self.strip = self.path / "index.html", self.path / "strip.webp"
        self._log, self._previews = self.path / _LOG, self.path / "previews"
        self._lock = FileLock(self.path / ".lock")

    # --- what is there -----------------------------------------------------------------------

    @property
    def is_run(self) -> bool:
        """Whether this is the folder of a run: it has a log."""
        return self._log.is_file()

    @property
    def has_checkpoint(self) -> bool:
        return any(self.checkpoints.glob("*.safetensors"))

    @property
    def has_token(self) -> bool:
        """Whether there is a learned token of this name."""
        return self.token.is_file()

    @property
    def has_progress(self) -> bool:
        """Whether there is anything to look at or to resume."""
        return bool(self.read_log().entries) or self.has_checkpoint

    @property
    def is_unfinished(self) -> bool:
        """Whether the run can be resumed. The report is written last, so a run that has one is finished.

        A token without a report is of an earlier run, which this one was to replace.
        """
        return self.has_checkpoint and not self.is_finished

    @property
    def is_finished(self) -> bool:
        """Whether there is a token, and the report of its run."""
        return self.has_token and self.report.exists()

    @property
    def is_locked(self) -> bool:
        """Whether a process trains in this folder."""
        if not Path(self._lock.lock_file).exists():
            return False
        try:
            with FileLock(self._lock.lock_file, timeout=0):
                return False
        except Timeout:
            return True

    # --- one process at a time ---------------------------------------------------------------

    def check(self, pictures: Path, *, resume: bool, overwrite: bool) -> None:
        """Raise `UsageError` if a run may not start here; change nothing."""
        if resume and overwrite:
            raise UsageError(
                "`resume` and `overwrite` exclude each other",
                "`resume` continues an unfinished run, `overwrite` starts again",
            )
        if pictures.resolve().is_relative_to(self.path.resolve()):
            raise UsageError(
                f"the run would write to {self.path}, which holds the training images",
                "use another `output` or `name`",
            )
        if overwrite or (resume and (self.is_unfinished or (self.has_checkpoint and self.has_token))):
            return
        if self.is_unfinished:
            raise UsageError(
                f"{self.path} holds an unfinished run", "set `resume` to continue it, or `overwrite` to start again"
            )
        if self.token.exists():
            going_on = ", or set `resume` with more `steps` to train it further" if self.has_checkpoint else ""
            raise UsageError(f"{self.token} already exists", f"use another `name`, or set `overwrite`{going_on}")

    def open(self, pictures: Path, *, resume: bool, overwrite: bool) -> None:
        """Make the folder, take its lock and check again, because another process may have been here.

        With `overwrite`, remove everything but the learned token. Raises `UsageError` and `DiskError`.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(
                f"another process is training in {self.path}", "wait for it, or use another `name`"
            ) from None
        except OSError as error:
            raise DiskError(f"cannot write to {self.path}: {error.strerror or error}", "use another `output`") from None
        self.check(pictures, resume=resume, overwrite=overwrite)
        if overwrite:
            for folder in (self.checkpoints, self._previews):
                shutil.rmtree(folder, ignore_errors=True)
            for file in (self._log, self.report, self.strip):
                file.unlink(missing_ok=True)

    def close(self) -> None:
        """Release the lock."""
        self._lock.release()

    # --- log ---------------------------------------------------------------------------------

    def append_log(self, entry: Mapping[str, Any]) -> None:
        """Add a line to the log; raises `DiskError`."""
        try:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        except OSError as error:
            raise DiskError(
                f"cannot write {self._log}: {error.strerror or error}", "free some space, then set `resume`"
            ) from error

    def read_log(self) -> RunLog:
        """The log as it is now; empty when there is none or it cannot be read."""
        try:
            text = self._log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return RunLog()
        return RunLog.parse(text.splitlines())

    def rewind(self, step: int) -> None:
        """Remove what was logged and saved after a step, before resuming there. The run is no longer finished."""
        lines = [json.dumps(e, ensure_ascii=False) + "\n" for e in self.read_log().entries if e["step"] <= step]
        atomic.write_atomic(self._log, "".join(lines).encode())
        self.report.unlink(missing_ok=True)
        for image_step, path in self.validation_images():
            if image_step > step:
                path.unlink()

    # --- validation images -------------------------------------------------------------------

    def save_images(self, step: int, pictures: Sequence[Image.Image]) -> None:
        """Save the validation images of a step side by side in one file; `INIT_STEP` is that of the init words."""
        name = _INIT if step == INIT_STEP else f"{step:06}"
        sheet = images.make_grid(list(pictures), len(pictures))
        atomic.write_atomic(self._previews / f"{name}.png", images.encode(sheet, "PNG"))

    def validation_images(self) -> list[tuple[int, Path]]:
        """(step, file) in order; `read_images` opens a file."""
        files = [
            (INIT_STEP if path.stem == _INIT else int(path.stem), path)
            for path in self._previews.glob("*.png")
            if path.stem == _INIT or path.stem.isdecimal()
        ]
        return sorted(files)

    def latest_images(self) -> list[Image.Image]:
        """The newest validation images of the token alone; none while there are none."""
        files = self.validation_images()
        try:
            images = read_images(files[-1][1]) if files else []
            return images[: token_images(len(images))]
        except (DiffusekitError, OSError):
            return []


def run_folders(output: Path) -> list[RunFolder]:
    """The runs in a folder of learned tokens, by name."""
    return [RunFolder(output, path.parent.name) for path in sorted(output.glob(f"*/{_LOG}"))]


def read_images(path: Path) -> list[Image.Image]:
    """The square images in a file of validation images: the token alone, then the edit prompts.

    Raises `DiffusekitError` if the file is damaged.
    """
    with images.open_image(path) as file:
        sheet = images.to_rgb(file)
    side = sheet.height
    return [sheet.crop((x, 0, x + side, side)) for x in range(0, sheet.width - side + 1, side)]


def token_images(count: int) -> int:
    """How many of `count` validation images show the token alone. The others show edit prompts, at most four."""
    return max(count - 4, count - count // 2)


def image_sheet(path: Path) -> Image.Image:
    """The images of a file, those of the edit prompts below; raises `DiffusekitError` if it is damaged."""
    pictures = read_images(path)
    return images.make_grid(pictures, token_images(len(pictures)))


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
