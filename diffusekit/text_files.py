"""Text that users wrote: UTF-8, with or without the byte order mark that Windows adds."""

import codecs
import os

from .errors import UsageError

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decode(data: bytes, name: str) -> str:
    """Decode UTF-8 text. Raises `UsageError`, which names the source and what the text is instead."""
    if data.startswith(_UTF16) or b"\0" in data:
        kind = "UTF-16 or UTF-32 text" if data.startswith(_UTF16) or data[1:2] == b"\0" else "not text"
        raise UsageError(f"{name} is {kind}, expected UTF-8", "save it as UTF-8 text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"{name} is not UTF-8 text: line {line} has the byte 0x{data[error.start]:02x}"
        raise UsageError(message, "save it as UTF-8 text") from None


def repair(text: str) -> str:
    """Decode an argument as UTF-8 that Python decoded in another encoding, as where the locale is C.

    Any other text is returned as it is.
    """
    try:
        return text if text.isprintable() else os.fsencode(text).decode()
    except UnicodeError:
        return text
