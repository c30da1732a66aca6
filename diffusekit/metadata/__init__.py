"""Image metadata: the record of how an image was made, A1111's infotext, and the label that AI made it.

A file holds all three: infotext under A1111's key `parameters`, the complete record as JSON under
`diffusekit`, and the IPTC digital source type in XMP.
"""

from .files import FORMATS, LABEL, format_of, save, save_kwargs
from .infotext import format_infotext, parse_infotext, settings_from_infotext
from .other_tools import PROGRAM_NAMES
from .parameters import translate_sampler
from .reader import ImageMetadata, read
from .record import Record

__all__ = [
    "FORMATS",
    "LABEL",
    "PROGRAM_NAMES",
    "ImageMetadata",
    "Record",
    "format_infotext",
    "format_of",
    "parse_infotext",
    "read",
    "save",
    "save_kwargs",
    "settings_from_infotext",
    "translate_sampler",
]
