"""Where images are written: a file, a folder, or a folder named after the day. Existing files are kept."""

import re
from datetime import date
from pathlib import Path

from ..errors import UsageError
from ..workspace import Workspace

_ENDINGS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


class Destination:
    """The paths of the images of one run."""

    def __init__(self, output: str | None, kind: str | None, count: int, *, overwrite: bool = False):
        """`output` is a file (numbered when there are several), a folder (it ends in / or exists), or None.

        Raises `UsageError`, before any work, for an ending that is not an image's and for a file that exists.
        """
        from ..metadata import FORMATS, format_of

        if kind is not None and kind not in _ENDINGS:
            raise UsageError(f"unknown image format {kind!r}", f"formats: {', '.join(_ENDINGS)}")
        self.overwrite, self._count, self._index = overwrite, count, 0
        self._file: Path | None = None
        self._folder = Workspace().outputs / date.today().isoformat()
        self._ending = _ENDINGS[kind or "png"]
        if output is None:
            return
        if output.endswith(("/", "\\")) or Path(output).is_dir():
            self._folder = Path(output)
            return
        self._file = Path(output)
        if not self._file.suffix:
            self._file = self._file.with_suffix(self._ending)
        elif format_of(self._file) != FORMATS[self._ending] and kind is not None:
            raise UsageError(f"{self._file.name!r} and --format {kind} contradict each other", "leave out one of them")
        existing = [path for path in self._files() if path.exists()]
        if existing and not overwrite:
            raise UsageError(f"{existing[0]} already exists", "choose another name, or use --overwrite")

    def _files(self) -> list[Path]:
        assert self._file is not None
        if self._count == 1:
            return [self._file]
        return [self._file.with_stem(f"{self._file.stem}-{i + 1:0{len(str(self._count))}}") for i in range(self._count)]

    def next(self, prompt: str, seed: int) -> Path:
        """Return the path of the next image. In a folder: number, seed and first words of the prompt."""
        self._index += 1
        if self._file is not None:
            return self._files()[self._index - 1]
        words = re.sub(r"[^\w]+", "-", prompt.lower(), flags=re.ASCII).strip("-")[:40].strip("-")
        number = 1 + max(
            (int(m[1]) for p in self._folder.glob("*-*") if (m := re.match(r"(\d{5,})-", p.name))),
            default=0,
        )
        return self._folder / f"{number:05}-{seed}-{words or 'image'}{self._ending}"
