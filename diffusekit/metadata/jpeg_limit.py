"""Fit the record of an image into the one EXIF segment of a JPEG file, which has 65,533 bytes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from .record import Record

log = logging.getLogger(__name__)

MAX_COMMENT = 65_000  # bytes; the rest of the segment is for the directories of EXIF
_LENGTHS = (16_000, 8000, 6000, 4000, 2000, 1000, 500, 100)  # of a shortened prompt, in characters
_PROMPTS = ("prompt", "negative_prompt")


def fit_comment(record: Record, build: Callable[[Record, Record], bytes]) -> bytes:
    """Return the comment that `build` makes of two records: for the text of A1111, and for our own.

    If it does not fit, the prompts in A1111's text are shortened, then those in our record too. The record then
    names them in `shortened`. A record that is too long for other reasons gives an empty comment. Each is logged.
    """
    for for_a1111, own, sentence in _candidates(record):
        comment = build(for_a1111, own)
        if len(comment) <= MAX_COMMENT:
            if sentence:
                log.warning("%s; PNG and WebP keep it whole", sentence)
            return comment
    log.warning("the settings are too long for a JPEG file, so they are not in it; PNG and WebP keep them")
    return b""


def _candidates(record: Record) -> Iterator[tuple[Record, Record, str]]:
    yield record, record, ""
    for length in _LENGTHS:
        yield (
            _shorten(record, length),
            record,
            "the prompt is too long for A1111's text in a JPEG file, and is cut there",
        )
    for length in _LENGTHS:
        short = _shorten(record, length)
        yield short, short, "the prompt is too long for a JPEG file, so its record is shortened"


def _shorten(record: Record, length: int) -> Record:
    """Cut the prompts to `length` characters. A cut prompt ends in an ellipsis."""
    texts = {name: getattr(record.settings, name) for name in _PROMPTS}
    cut = {name: f"{text[:length]}…" for name, text in texts.items() if len(text) > length}
    return record.model_copy(update={"settings": record.settings.model_copy(update=cut), "shortened": tuple(cut)})
