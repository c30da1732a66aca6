"""Standard streams that stop no command: closed, full, or in another encoding than UTF-8."""

import codecs
import io
import os
import sys
from typing import Any

from ..errors import UsageError
from ..text_files import decode

_ESCAPE = "diffusekit.escape"


class _LossyFile(io.FileIO):
    """A file that drops what cannot be written, so that a full disk behind stderr stops nothing."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


def _escape(error: UnicodeError) -> tuple[str, int]:
    r"""Write characters that an encoding lacks as \u escapes, which are valid in JSON too."""
    assert isinstance(error, UnicodeEncodeError)
    raw = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{raw[i : i + 2].hex()}" for i in range(0, len(raw), 2)), error.end


def open_streams() -> None:
    """Make the standard streams of this process usable, whatever they are connected to.

    A stream that is closed becomes the null device: nothing is read, and nothing is written. What cannot be written
    to stderr is dropped. Characters that an encoding lacks are written as escapes.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # a file that is opened later would get the number, and text would be written into it
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    codecs.register_error(_ESCAPE, _escape)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=_ESCAPE)
    file = io.BufferedWriter(_LossyFile(2, "w", closefd=False))
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    sys.stderr = io.TextIOWrapper(file, encoding=encoding, errors=_ESCAPE, line_buffering=True)


def read_stdin() -> str:
    """Read stdin as UTF-8 text, with or without a byte order mark. Raises `UsageError` for anything else."""
    try:
        binary = getattr(sys.stdin, "buffer", None)
        return decode(binary.read(), "stdin") if binary else sys.stdin.read()
    except OSError as error:
        raise UsageError(f"cannot read stdin: {error.strerror or error}", "expected one prompt per line") from None
