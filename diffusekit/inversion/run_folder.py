"""The folder of a run: its checkpoints, log and previews, and that only one process works in it.

embeddings/my_cat.safetensors   the learned token, when it is done
embeddings/my_cat/              log.jsonl, checkpoints/, previews/, and the page about the run
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from PIL import Image

from .. import atomic, images
from ..errors import DiskError, UsageError


class RunFolder:
    """Paths of a run, and the lock that is held from `begin` to `close`."""

    def __init__(self, output: Path, name: str):
        self.folder = output / name
        self.token = output / f"{name}.safetensors"
        self.checkpoints = self.folder / "checkpoints"
        self.page, self.strip = self.folder / "index.html", self.folder / "strip.webp"
        self._log, self._previews = self.folder / "log.jsonl", self.folder / "previews"
        self._lock = FileLock(self.folder / ".lock")

    @property
    def begun(self) -> bool:
        """Whether the folder is that of a run."""
        return self._log.is_file()

    @property
    def resumable(self) -> bool:
        """Whether there is a checkpoint."""
        return any(self.checkpoints.glob("*.safetensors"))

    def check(self, pictures: Path, *, resume: bool, overwrite: bool) -> None:
        """Refuse to work among the pictures, or over earlier work unless told to; changes nothing."""
        if resume and overwrite:
            raise UsageError(
                "--resume and --overwrite are both given",
                "--resume goes on with an unfinished run, --overwrite starts again",
            )
        if pictures.resolve().is_relative_to(self.folder.resolve()):
            raise UsageError(
                f"the run's own folder would be {self.folder}, where the pictures are",
                "choose another --output or --name",
            )
        # The page is written last. A token without it is of an earlier run that this one was to replace.
        unfinished = self.resumable and not (self.token.exists() and self.page.exists())
        if overwrite or (unfinished and resume):
            return
        if unfinished:
            raise UsageError(
                f"{self.folder} holds an unfinished run",
                "--resume goes on with it, --overwrite starts again",
            )
        if self.token.exists():
            raise UsageError(f"{self.token} already exists", "choose another --name, or say --overwrite")

    def begin(self, pictures: Path, *, resume: bool, overwrite: bool) -> None:
        """Make the folder, take its lock and check again: another process may have been here meanwhile.

        With `overwrite`, clear away all but the learned token.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(
                f"another process is at work in {self.folder}", "wait for it, or choose a --name"
            ) from None
        except OSError as error:
            raise DiskError(f"cannot write in {self.folder}: {error.strerror or error}", "choose an --output") from None
        self.check(pictures, resume=resume, overwrite=overwrite)
        if overwrite:
            for path in (self.checkpoints, self._previews):
                shutil.rmtree(path, ignore_errors=True)
            for path in (self._log, self.page, self.strip):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        self._lock.release()

    # --- log ---------------------------------------------------------------------------------

    def append_log(self, entry: dict[str, Any]) -> None:
        """Add a line to the log."""
        try:
            with self._log.open("a", encoding="utf-8") as log:
                log.write(json.dumps(entry, ensure_ascii=False) + "\n")
        except OSError as error:
            raise DiskError(
                f"cannot write {self._log}: {error.strerror or error}",
                "free some space, then --resume",
            ) from error

    def notes(self) -> list[dict[str, Any]]:
        """The lines of the log; a line cut off by a crash is left out."""
        found = []
        if self._log.exists():
            for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    found.append(json.loads(line))
                except ValueError:
                    continue
        return found

    def rewind(self, step: int) -> None:
        """Forget what was noted and shown after a step, before going on from its checkpoint."""
        kept = [json.dumps(e, ensure_ascii=False) for e in self.notes() if e.get("step", 0) <= step]
        atomic.write_atomic(self._log, "".join(line + "\n" for line in kept).encode())
        for path in self._previews.glob("[0-9]*.png"):
            if int(path.stem) > step:
                path.unlink()

    # --- previews ----------------------------------------------------------------------------

    def show(self, name: str, pictures: Sequence[Image.Image]) -> None:
        """Keep the pictures of a preview, side by side in one file."""
        sheet = images.make_grid(list(pictures), len(pictures))
        atomic.write_atomic(self._previews / f"{name}.png", images.encode(sheet, "PNG"))

    def shown(self) -> dict[str, list[Image.Image]]:
        """The previews kept so far, in order: "init" and the steps' numbers."""
        found = {}
        for path in sorted(self._previews.glob("*.png"), key=lambda p: (p.stem != "init", p.stem)):
            with Image.open(path) as sheet:
                side = sheet.height
                whole = sheet.convert("RGB")
            columns = range(0, whole.width, side)
            found[path.stem] = [whole.crop((x, 0, x + side, side)) for x in columns]
        return found
