"""Image files with metadata: the texts that are written into them, and their formats."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from .. import atomic
from ..errors import UsageError
from . import exif as exif_texts
from .infotext import format_infotext
from .jpeg_limit import fit_comment
from .record import Record

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
LABEL = _SOURCE_TYPES + "trainedAlgorithmicMedia"
COMPOSITE_LABEL = _SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"  # made from another image
XMP_KEY = "XML:com.adobe.xmp"
OWN_KEY = "diffusekit"
_XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
    ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
    "<Iptc4xmpExt:DigitalSourceType>{label}</Iptc4xmpExt:DigitalSourceType>"
    '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


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
    is_composite: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write an image with its metadata, atomically; the ending chooses the format (`FORMATS`).

    The label says that a machine made the image, and for a composite, with a record or not, that it was made from
    another image. Raises `UsageError` for another ending, a file that exists, or an image too large for the format;
    `DiskError` when the file cannot be written.
    """
    format = format_of(path)
    if path.exists() and not overwrite:
        raise UsageError(f"{path} already exists", "use another name, or set `overwrite`")
    file = BytesIO()
    try:
        image.save(file, format, **save_kwargs(format, record, label, is_composite=is_composite))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path.name} cannot be stored as {format}: {error}", "use the ending .png") from None
    return atomic.write_atomic(path, file.getvalue(), _decode, durable=False)


def _decode(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def save_kwargs(format: str, record: Record | None, label: bool, *, is_composite: bool = False) -> dict[str, Any]:
    """Make the arguments with which Pillow's `save` writes record and label into a file of this format.

    A record that is too long for JPEG is shortened, and the log says so.
    """
    is_composite = is_composite or bool(record and record.start_image)
    xmp = _XMP.replace("{label}", COMPOSITE_LABEL if is_composite else LABEL)
    if format == "PNG":
        info = PngImagePlugin.PngInfo()
        if record:
            info.add_text("parameters", format_infotext(record))  # Pillow writes tEXt for Latin-1, else iTXt
            info.add_itxt(OWN_KEY, record.model_dump_json())
        if label:
            info.add_itxt(XMP_KEY, xmp)
        # level 1 is several times faster than the default and a fifth larger; no pixel differs
        return {"pnginfo": info, "compress_level": 1}
    kwargs: dict[str, Any] = {"quality": 95}
    if record and (comment := fit_comment(record, _comment) if format == "JPEG" else _comment(record, record)):
        exif = Image.Exif()
        exif.get_ifd(exif_texts.EXIF_FOLDER)[exif_texts.USER_COMMENT] = comment
        kwargs["exif"] = exif
    if label:
        kwargs["xmp"] = xmp.encode()
    return kwargs


def _comment(for_a1111: Record, own: Record) -> bytes:
    """Make the EXIF comment: A1111's text, then our record, as UTF-16."""
    text = f"{format_infotext(for_a1111)}\n{OWN_KEY}: {own.model_dump_json()}"
    return exif_texts.UNICODE + text.encode("utf-16-be")
