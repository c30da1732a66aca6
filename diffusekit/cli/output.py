"""Where images are written: a file, a folder, or a folder named after the day. Existing files are kept."""

import logging
import re
from datetime import date
from pathlib import Path

from ..atomic import check_destination
from ..display import file_words
from ..errors import UsageError
from ..workspace import Workspace

log = logging.getLogger(__name__)

ENDINGS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


class Destination:
    """The paths of the images of one run."""

    def __init__(self, output: str | None, kind: str | None, count: int, *, overwrite: bool = False):
        """`output` is a file (numbered when there are several), a folder (it ends in / or exists), or None.

        Raises `UsageError`, before any work, for an ending that is not an image's, for a file that exists and for a
        name that cannot be written, and `DiskError` for a folder that cannot be written.
        """
        if kind is not None and kind not in ENDINGS:
            raise UsageError(f"unknown image format {kind!r}", f"formats: {', '.join(ENDINGS)}")
        self.overwrite, self._count, self._index = overwrite, count, 0
        self._file: Path | None = None
        self._folder = Workspace().outputs / date.today().isoformat()
        self._ending = ENDINGS[kind or "png"]
        if output is None or _is_folder(output):
            self._folder = self._folder if output is None else Path(output)
            check_destination(self._folder / f"image{self._ending}")
            if overwrite:
                log.warning("`overwrite` has no effect: images in a folder get new names")
            return
        self._file = self._name_file(output, kind)
        self._names = self._number(self._file)
        for path in self._names:
            check_destination(path)
            if path.exists() and not overwrite:
                raise UsageError(f"{path} already exists", "choose another name, or use --overwrite")

    def _name_file(self, output: str, kind: str | None) -> Path:
        """Add the ending of the format to a name without one, and check the ending of any other."""
        from ..metadata import FORMATS, format_of

        if output in ("-", "/dev/stdout"):
            raise UsageError("images cannot be written to stdout", "use --output FILE; the path is printed on stdout")
        file = Path(output)
        stem = file.name.rstrip(".")
        if stem.lower() in FORMATS:
            raise UsageError(f"{output!r} has an ending and no name", "for example cat.png")
        if not file.suffix or not stem or "." not in stem:  # `cat`, `cat.`, `.cat`
            return file.with_name(f"{stem or 'image'}{self._ending}")
        if format_of(file) != FORMATS[self._ending] and kind is not None:
            raise UsageError(f"{file.name!r} and --format {kind} contradict each other", "leave out one of them")
        return file

    def _number(self, file: Path) -> list[Path]:
        """Name the files of all images: the file itself, or numbered ones."""
        if self._count == 1:
            return [file]
        digits = len(str(self._count))
        return [file.with_stem(f"{file.stem}-{i + 1:0{digits}}") for i in range(self._count)]

    def next(self, prompt: str, seed: int) -> Path:
        """Return the path of the next image. In a folder: number, seed and first words of the prompt."""
        self._index += 1
        if self._file is not None:
            return self._names[self._index - 1]
        number = 1 + max(
            (int(m[1]) for p in self._folder.glob("*-*") if (m := re.match(r"(\d{5,})-", p.name))),
            default=0,
        )
        return self._folder / f"{number:05}-{seed}-{file_words(prompt) or 'image'}{self._ending}"


def _is_folder(output: str) -> bool:
    """Whether an output names a folder: it ends in a separator, or exists as one."""
    if not output.strip():
        raise UsageError("--output is empty", "give the name of a file, or of a folder that ends in /")
    try:
        return output.endswith(("/", "\\")) or Path(output).is_dir()
    except (OSError, ValueError):  # too long, which is checked later
        return False
