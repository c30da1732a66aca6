"""Image files with metadata: write them, and read those of diffusekit and of other programs."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin
from pydantic import BaseModel, ConfigDict, ValidationError

from .. import atomic, images
from ..errors import FileRefused, UsageError
from ..settings import GenerateSettings
from . import other_tools
from .infotext import format_infotext, parse_infotext, settings_from_infotext
from .record import Record

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
LABEL = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_XMP_KEY = "XML:com.adobe.xmp"
_USER_COMMENT, _EXIF_FOLDER = 0x9286, 0x8769
_UNICODE = b"UNICODE\x00"  # how EXIF says that a comment is UTF-16
_OWN_KEY = "diffusekit"
_MAX_TEXT = 1_000_000
_XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
    ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
    f"<Iptc4xmpExt:DigitalSourceType>{LABEL}</Iptc4xmpExt:DigitalSourceType>"
    '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


class ImageMetadata(BaseModel):
    """What an image file says about itself.

    `record` is ours. `parameters` are those of A1111's infotext, translated for other programs' files.
    `label` tells whether the file says that a trained model made it.
    """

    model_config = ConfigDict(frozen=True)

    record: Record | None = None
    parameters: dict[str, str] = {}
    label: bool = False

    @property
    def settings(self) -> GenerateSettings | None:
        """The settings that make the image again, or None. Raises `UsageError` for unusable values."""
        if self.record:
            return self.record.settings
        return settings_from_infotext(self.parameters) if len(self.parameters) > 2 else None


def format_of(path: Path) -> str:
    """Return Pillow's name of the format that a file's ending stands for; raises `UsageError` for another."""
    format = FORMATS.get(path.suffix.lower())
    if format is None:
        raise UsageError(f"{path.name!r} does not end like an image", f"use one of {', '.join(FORMATS)}")
    return format


def save(
    image: Image.Image,
    path: Path,
    record: Record | None,
    *,
    label: bool = True,
    overwrite: bool = False,
) -> Path:
    """Write an image with its metadata, atomically; the ending chooses the format (`FORMATS`).

    Raises `UsageError` for another ending, a file that exists, or an image too large for the format;
    `DiskError` when the file cannot be written.
    """
    format = format_of(path)
    if path.exists() and not overwrite:
        raise UsageError(f"{path} already exists", "use another name, or set `overwrite`")
    file = BytesIO()
    try:
        image.save(file, format, **save_kwargs(format, record, label))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path.name} cannot be stored as {format}: {error}", "use the ending .png") from None
    return atomic.write_atomic(path, file.getvalue(), _decode, durable=False)


def _decode(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def save_kwargs(format: str, record: Record | None, label: bool) -> dict[str, Any]:
    """Make the arguments with which Pillow's `save` writes record and label into a file of this format."""
    own = record.model_dump_json() if record else ""
    if format == "PNG":
        info = PngImagePlugin.PngInfo()
        if record:
            info.add_text("parameters", format_infotext(record))  # Pillow writes tEXt for Latin-1, else iTXt
            info.add_itxt(_OWN_KEY, own)
        if label:
            info.add_itxt(_XMP_KEY, _XMP)
        # level 1 is several times faster than the default and a fifth larger; no pixel differs
        return {"pnginfo": info, "compress_level": 1}
    kwargs: dict[str, Any] = {"quality": 95}
    if record:
        exif = Image.Exif()
        text = f"{format_infotext(record)}\n{_OWN_KEY}: {own}"
        exif.get_ifd(_EXIF_FOLDER)[_USER_COMMENT] = _UNICODE + text.encode("utf-16-be")
        kwargs["exif"] = exif
    if label:
        kwargs["xmp"] = _XMP.encode()
    return kwargs


def read(path: Path) -> ImageMetadata:
    """Read the metadata that diffusekit, A1111, Forge or a program of `other_tools` wrote into an image.

    Raises `FileRefused` when the file is not an image or is damaged.
    """
    texts, comment, xmp = _read_texts(path)
    text, own = texts.get("parameters", ""), texts.get(_OWN_KEY, "")
    if comment:
        text, _, own = comment.rpartition(f"\n{_OWN_KEY}: ")
        if not text:
            text, own = own, ""
    record = _parse_record(own)
    parameters = parse_infotext(text) if len(text) < _MAX_TEXT else {}
    if record is None:
        is_infotext = len(parameters) > 2  # or Fooocus' JSON, which looks like it
        parameters = other_tools.read_parameters({"parameters": text} if is_infotext else texts) or parameters
    return ImageMetadata(record=record, parameters=parameters if any(parameters.values()) else {}, label=LABEL in xmp)


def _read_texts(path: Path) -> tuple[dict[str, str], str, str]:
    """The texts of an image file by key, its EXIF comment and its XMP; raises `FileRefused`."""
    with images.open_image(path) as image:
        try:
            texts = {k: v for k, v in getattr(image, "text", image.info).items() if isinstance(v, str)}
            comment = image.getexif().get_ifd(_EXIF_FOLDER).get(_USER_COMMENT)
            xmp = image.info.get("xmp", texts.get(_XMP_KEY, ""))
        except (OSError, ValueError, SyntaxError) as error:
            raise FileRefused(f"{path} is damaged: {error}", "use another copy of it") from None
    unicode = comment[len(_UNICODE) :] if isinstance(comment, bytes) and comment.startswith(_UNICODE) else b""
    return (
        texts,
        unicode.decode("utf-16-be", "replace"),
        xmp.decode("utf-8", "replace") if isinstance(xmp, bytes) else str(xmp),
    )


def _parse_record(text: str) -> Record | None:
    if not text or len(text) > _MAX_TEXT:
        return None
    try:
        return Record.model_validate_json(text)
    except ValidationError:
        return None
