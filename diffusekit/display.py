"""Text that is safe to print or in file names: untrusted strings, and counts, sizes and durations in words."""

import os
import re
import unicodedata

_MAX_WORDS_BYTES = 120  # of the words in a file name, which has a number and an ending as well


def printable(text: str, *, limit: int | None = None, allow: str = "") -> str:
    """Replace control and other invisible characters by "\N{REPLACEMENT CHARACTER}", except those in `allow`.

    A terminal or a page would obey such characters. Text longer than `limit` is cut and ends in "…".
    """
    if limit is not None and len(text) > limit:
        text = f"{text[: limit - 1]}…"
    return "".join(c if c.isprintable() or c in allow else "\N{REPLACEMENT CHARACTER}" for c in text)


def file_words(text: str, limit: int = 40) -> str:
    """Make the first words of a text a part of a file name: letters and digits of any script, joined by dashes.

    Returns "" if there are none, or if this system's file names cannot have them.
    """
    lower = unicodedata.normalize("NFC", text.lower())
    words = "".join(c if c.isalnum() or c == "_" or unicodedata.category(c)[0] == "M" else "-" for c in lower)
    cut = re.sub("-+", "-", words).strip("-")[:limit].encode()[:_MAX_WORDS_BYTES].decode("utf-8", "ignore").strip("-")
    try:
        os.fsencode(cut)
    except UnicodeEncodeError:
        return ""
    return cut


def quote(text: str, limit: int = 60) -> str:
    """Put text from an untrusted file between quotes for a message: printable, at most `limit` characters."""
    return f"'{printable(text, limit=limit)}'"


def first_line(error: BaseException, limit: int = 200) -> str:
    """Return the first line of an error's text, or the name of its type when it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:limit] if lines else type(error).__name__


def format_count(number: int, noun: str) -> str:
    """Write a number with its noun: "1 image", "1,200 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_size(size: float) -> str:
    """Write a number of bytes in decimal units, rounded: "512 bytes", "20 kB", "1.4 MB"."""
    if size < 1000:
        return f"{size:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.5 or unit == "GB":
            break
    return f"{size:.1f} {unit}" if size < 9.95 else f"{size:,.0f} {unit}"


def parse_size(text: str) -> int:
    """Read a number of bytes with its unit, like 4GB, 3.5 GiB or 800MB; raises `ValueError`."""
    match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*([kmgt])(i?)b?\s*", text.lower())
    if match is None:
        raise ValueError("should be a size with its unit, like 4GB or 800MB")
    number, unit, is_binary = match.groups()
    size = float(number) * (1024 if is_binary else 1000) ** ("kmgt".index(unit) + 1)
    if size < 1:
        raise ValueError("should be more than 0")
    return int(size)


def format_duration(seconds: float) -> str:
    """Write a duration, rounded: "2.5 s", "40 s", "3 min", "2 h 5 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
