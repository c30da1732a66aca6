"""Read what an image file says about how it was made, whichever program wrote it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from html import unescape
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin, features
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .. import images
from ..errors import FileRefused
from ..settings import GenerateSettings
from . import exif, infotext, other_tools
from .files import COMPOSITE_LABEL, LABEL, OWN_KEY, XMP_KEY
from .parameters import Restored, has_settings, restore
from .record import Record

_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_TEXT = 1_000_000  # characters of one text that are parsed
# AVIF is read for its metadata only, where this Pillow can.
_FORMATS = (*images.READABLE_FORMATS, *(["AVIF"] if features.check("avif") else []))
_XMP_TEXTS = ("exif:UserComment", "dc:description")
# Where the main text of an image may be. Only the first two hold text that is a prompt alone.
_COMMENTS = (
    "parameters",
    "UserComment",
    "Parameters",
    "ImageDescription",
    "XPComment",
    "comment",
    "Comment",
    "Description",
    *_XMP_TEXTS,
)


class ImageMetadata(BaseModel):
    """What an image file says about itself.

    `record` is ours. `parameters` are those of A1111's infotext, translated for other programs' files, and `unknown`
    are those whose value cannot be known, each with the reason. `label` tells whether the file says that a trained
    model made it. `text` is the stored text as it is, and `items` are the other texts of the file by their key.
    """

    model_config = ConfigDict(frozen=True)

    record: Record | None = None
    parameters: dict[str, str] = {}
    unknown: dict[str, str] = {}
    label: bool = False
    text: str = Field("", exclude=True, repr=False)
    items: dict[str, str] = Field({}, exclude=True, repr=False)

    @property
    def settings(self) -> GenerateSettings | None:
        """The settings that make the image again, as far as they are known. None if there are none."""
        if self.record:
            return self.record.repeated
        return self._restore().settings if has_settings(self.parameters) or self.unknown else None

    @property
    def missing(self) -> dict[str, str]:
        """Settings whose value is unknown or cannot be used, each with the reason.

        Our own images lack nothing but the image and the mask that they were made from.
        """
        if record := self.record:
            hashes = {"start_image": record.start_image, "mask": record.mask}
            return {name: "is not stored in it" for name, sha256 in hashes.items() if sha256}
        return dict(self._restore().missing)

    @property
    def unused(self) -> dict[str, str]:
        """Fields of another program that shaped the image and have no effect here."""
        return {} if self.record else dict(self._restore().unused)

    def _restore(self) -> Restored:
        return restore(self.parameters, self.unknown)


def read(path: Path) -> ImageMetadata:
    """Read the metadata that diffusekit or a program of `other_tools` wrote into an image.

    Raises `FileRefused` when the file is not an image or is damaged.
    """
    texts, xmp = _read_texts(path)
    label = LABEL in xmp or COMPOSITE_LABEL in xmp
    key = next((key for key in _COMMENTS if texts.get(key)), "")
    own = texts.get(OWN_KEY, "")
    if f"\n{OWN_KEY}: {{" in texts.get("UserComment", ""):
        key = "UserComment"
        texts[key], _, own = texts[key].rpartition(f"\n{OWN_KEY}: ")
    if record := _parse_record(own):
        text = texts.get(key, "")
        parameters = infotext.parse_infotext(text)
        return ImageMetadata(record=record, parameters=parameters, label=label, text=text, items=_without(texts, text))
    comments = [texts[key] for key in _COMMENTS if key in texts]
    if found := other_tools.read_texts(texts, comments):
        reading, text = found
        parameters, unknown = _whole(reading.parameters), _whole(reading.unknown)
        items = _without(texts, text)
        return ImageMetadata(parameters=parameters, unknown=unknown, label=label, text=text, items=items)
    text = texts.get("parameters") or texts.get("UserComment", "")
    is_prompt = text.strip() and not text.lstrip().startswith(("{", "[{"))
    parameters = _whole(infotext.parse_infotext(text)) if is_prompt else {}
    return ImageMetadata(parameters=parameters, label=label, text=text, items=_without(texts, text))


def _without(texts: Mapping[str, str], text: str) -> dict[str, str]:
    return {key: value for key, value in texts.items() if value != text}


def _whole(texts: Mapping[str, str]) -> dict[str, str]:
    """Replace halves of characters, which JSON can hold and UTF-8 cannot."""
    return {_SURROGATE.sub("\ufffd", key): _SURROGATE.sub("\ufffd", text) for key, text in texts.items()}


def _read_texts(path: Path) -> tuple[dict[str, str], str]:
    """The texts of an image file by key, and its XMP; raises `FileRefused`."""
    with images.open_image(path, formats=_FORMATS) as image:
        try:
            stored = getattr(image, "text", image.info)
            texts = {key: text for key, value in stored.items() if (text := _decode(value)) is not None}
            texts = {**_exif_texts(image), **texts}
            xmp = image.info.get("xmp", texts.pop(XMP_KEY, ""))
        except (OSError, ValueError, SyntaxError) as error:
            raise FileRefused(f"{path} is damaged: {error}", "use another copy of it") from None
    xmp = xmp.decode("utf-8", "replace") if isinstance(xmp, bytes) else str(xmp)
    for name in _XMP_TEXTS:
        if text := _xmp_text(xmp[:_MAX_TEXT], name):
            texts.setdefault(name, text)
    return {key: text for key, text in texts.items() if len(text) <= _MAX_TEXT}, xmp


def _exif_texts(image: Image.Image) -> dict[str, str]:
    """The texts of the EXIF; none if it is damaged, because the other texts of the file may be whole."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library is silent
            return exif.read_texts(image.getexif())
    except Exception:  # Pillow's reader raises anything at all on bytes made to confuse it
        return {}


def _decode(value: Any) -> str | None:
    """A text as it was meant. Programs write UTF-8 where PNG asks for Latin-1; comments of other formats are bytes."""
    if isinstance(value, bytes):
        return exif.decode_comment(value)
    if isinstance(value, str):
        return str(value) if isinstance(value, PngImagePlugin.iTXt) else exif.repair_latin1(value)
    return None


def _xmp_text(xmp: str, name: str) -> str:
    """The text of an element of XMP, without the list around it; "" if there is none."""
    start, end = xmp.find(f"<{name}"), xmp.find(f"</{name}>")
    if start < 0 or end < start:
        return ""
    return unescape(re.sub(r"<[^<>]*>", "", xmp[start:end])).strip()


def _parse_record(text: str) -> Record | None:
    if not text:
        return None
    try:
        return Record.model_validate_json(text)
    except ValidationError:
        return None
