"""Texts in EXIF: comments in all encodings that programs write, and ComfyUI's JSON in the tags of a camera.

EXIF begins a comment with eight bytes that name its encoding. Programs disagree about what follows, so the bytes
themselves decide: the reading with the most plausible characters is taken.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from typing import Any

from PIL import Image

EXIF_FOLDER = 0x8769
USER_COMMENT = 0x9286
UNICODE = b"UNICODE\x00"  # how EXIF says that a comment is UTF-16
_HEADERS = (b"UNICODE", b"ASCII", b"JIS", b"")
_JAPANESE = ("iso2022_jp", "euc_jp", "cp932")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAMPLE = 4000  # bytes from which an encoding is chosen
_CONTROL = re.compile(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_NAMES = {0x010E: "ImageDescription", 0x9C9B: "XPTitle", 0x9C9C: "XPComment", 0x0131: "Software"}
_JSON_TAGS = (0x010E, 0x010F, 0x0110)  # ComfyUI's WebP has "workflow:{…}" and "prompt:{…}" here
_JSON_TEXT = re.compile(r"(prompt|workflow):\s*(?=\{)", re.IGNORECASE)
# Blocks that prompts are written in. The other letters of Unicode are rare enough to be read by mistake.
_COMMON = re.compile(
    "[\u00a0-\u024f\u0370-\u052f\u0590-\u06ff\u0900-\u097f\u0e00-\u0e7f\u1e00-\u1eff\u2010-\u203a\u20ac\u3000-\u30ff"
    "\u4e00-\u9fff\uac00-\ud7a3\uff01-\uff9f\U0001f300-\U0001faff]"
)


def read_texts(exif: Image.Exif) -> dict[str, str]:
    """Return the texts of an image's EXIF by the name of their tag. ComfyUI's are called `prompt` and `workflow`.

    The comment is looked for in the EXIF folder and, where Fooocus writes it, in the first directory.
    """
    texts: dict[str, str] = {}
    for value in (exif.get_ifd(EXIF_FOLDER).get(USER_COMMENT), exif.get(USER_COMMENT)):
        if text := decode_comment(value):
            texts.setdefault("UserComment", text)
    for tag, name in _NAMES.items():
        if text := decode_comment(exif.get(tag)):
            texts[name] = text
    for tag in _JSON_TAGS:
        if match := _JSON_TEXT.match(text := decode_comment(exif.get(tag))):
            texts.setdefault(match[1].lower(), text[match.end() :])
    return texts


def decode_comment(value: Any) -> str:
    """Decode the value of a text tag, whatever its encoding. Returns "" for what is not text."""
    if isinstance(value, tuple) and all(isinstance(v, int) and 0 <= v < 256 for v in value):
        value = bytes(value)
    if isinstance(value, str):  # Pillow reads text tags as Latin-1
        try:
            value = value.encode("latin-1")
        except UnicodeEncodeError:
            return value.strip("\0")
    if not isinstance(value, bytes):
        return ""
    name = value[:8].rstrip(b"\0 ").upper()
    if name in _HEADERS and (name or value[:8] == bytes(8)):
        return _decode(value[8:], name)
    return _decode(value, b"")


def repair_latin1(text: str) -> str:
    """Return text that was UTF-8 and has been read as Latin-1 as it was meant; other text unchanged."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _decode(data: bytes, header: bytes) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _decode_as(data[len(mark) :], encoding)
    sample = data[:_SAMPLE].rstrip(b"\0")
    if not sample:
        return ""
    if encoding := _find_infotext(data) or (_find_kana(sample) if header == b"UNICODE" else ""):
        return _decode_as(data, encoding)
    if _is_plain(data, "utf-8"):
        return _decode_as(data, "utf-8")
    candidates = [encoding for encoding in _JAPANESE if header == b"JIS" and _is_plain(data, encoding)]
    candidates = candidates or ["utf-16-be", "utf-16-le", *([] if header == b"UNICODE" else ["cp1252"])]
    return _decode_as(data, max(candidates, key=lambda encoding: _plausibility(data[:_SAMPLE], encoding)))


def _decode_as(data: bytes, encoding: str) -> str:
    if encoding.startswith("utf-16") and len(data) % 2:
        # an odd byte is padding, or little-endian text whose last zero was cut off
        data = data + b"\0" if encoding == "utf-16-le" else data[:-1]
    return data.decode(encoding, "replace").strip("\0")


def _is_plain(data: bytes, encoding: str) -> bool:
    """Whether bytes are text of an encoding without control characters, besides zeros at the end."""
    try:
        text = data.rstrip(b"\0").decode(encoding)
    except UnicodeDecodeError:
        return False
    return not _CONTROL.search(text)


def _find_infotext(data: bytes) -> str:
    """The byte order of UTF-16 with an infotext or our own record in it, whatever the prompt is; else ""."""
    for encoding in ("utf-16-be", "utf-16-le"):
        at = data.find("\nSteps: ".encode(encoding))
        if at >= 0 and at % 2 == 0:
            return encoding
    return ""


def _find_kana(sample: bytes) -> str:
    """The byte order of UTF-16 that is Japanese kana alone, whose bytes can look like ASCII; else ""."""
    for start, encoding in enumerate(("utf-16-be", "utf-16-le")):
        if len(sample) > 2 and len(sample) % 2 == 0 and set(sample[start::2]) == {0x30}:
            return encoding
    return ""


def _plausibility(sample: bytes, encoding: str) -> float:
    """How much a sample reads like text: the mean weight of its characters."""
    text = _decode_as(sample, encoding)
    return sum(map(_weight, text)) / max(len(text), 1)


def _weight(character: str) -> int:
    if " " <= character <= "~" or character in "\n\r\t":
        return 3
    if _COMMON.match(character):
        return 2
    return -5 if unicodedata.category(character)[0] == "C" or character == "\ufffd" else 0
