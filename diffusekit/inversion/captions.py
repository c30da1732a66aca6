"""What a training photograph is said to show: the paper's templates, or a text beside the photo.

Knows no tokenizer and no model; the token's place is written `{}`.
"""

from __future__ import annotations

import re

from ..embeddings.lookup import spelling_pattern
from ..errors import DataSetError, UsageError
from .dataset import DataSet, Photo

# Gal et al. 2022, "An Image is Worth One Word", as in github.com/rinongal/textual_inversion and in
# diffusers' example; the phrases come from CLIP's prompts for ImageNet (Radford et al. 2021).
OBJECT_TEMPLATES = tuple(
    f"{phrase} {{}}"
    for phrase in (
        "a photo of a",
        "a rendering of a",
        "a cropped photo of the",
        "the photo of a",
        "a photo of a clean",
        "a photo of a dirty",
        "a dark photo of the",
        "a photo of my",
        "a photo of the cool",
        "a close-up photo of a",
        "a bright photo of the",
        "a cropped photo of a",
        "a photo of the",
        "a good photo of the",
        "a photo of one",
        "a close-up photo of the",
        "a rendition of the",
        "a photo of the clean",
        "a rendition of a",
        "a photo of a nice",
        "a good photo of a",
        "a photo of the nice",
        "a photo of the small",
        "a photo of the weird",
        "a photo of the large",
        "a photo of a cool",
        "a photo of a small",
    )
)
# Two of these stand twice in the original list, and count twice.
STYLE_TEMPLATES = tuple(
    f"{phrase} in the style of {{}}"
    for phrase in (
        "a painting",
        "a rendering",
        "a cropped painting",
        "the painting",
        "a clean painting",
        "a dirty painting",
        "a dark painting",
        "a picture",
        "a cool painting",
        "a close-up painting",
        "a bright painting",
        "a cropped painting",
        "a good painting",
        "a close-up painting",
        "a rendition",
        "a nice painting",
        "a small painting",
        "a weird painting",
        "a large painting",
    )
)
_TEMPLATES = {"object": OBJECT_TEMPLATES, "style": STYLE_TEMPLATES}
_SOURCES = ("auto", "templates", "files", "both")


def find_templates(property: str) -> tuple[str, ...]:
    """The paper's sentences for an "object" (27) or a "style" (19), each with one `{}`."""
    if property not in _TEMPLATES:
        raise UsageError(
            f"a token is learned as an object or a style, got {property!r}",
            "an object is a thing or a face, a style the way a picture is made",
        )
    return _TEMPLATES[property]


def make_captions(data: DataSet, property: str, source: str, *, token: str = "") -> list[tuple[str, ...]]:
    """For each photo the sentences it may be trained with; `{}` stands for the token.

    `source` is "templates", "files" (the text beside each photo), "both" (a photo without a text has
    templates alone), or "auto": the text of a photo that has one, templates for the others. Put the
    token in with `str.replace`: a text may hold other braces.

    A text that writes `{}`, or `token` itself as kohya's trainer wants it, says where the token
    stands. To any other text it is put in front, "{}, sitting in the grass": as A1111 writes
    "[name], [filewords]" and as taggers put the trigger word first.

    Raises `DataSetError` when "files" is asked for and a photo has no text.
    """
    if source not in _SOURCES:
        raise UsageError(
            f"captions come from {', '.join(_SOURCES)}, got {source!r}",
            "files are 00.txt for 00.jpg",
        )
    sentences = find_templates(property) if source != "files" else ()
    found = []
    for photo in data.photos:
        own = _from_file(photo, source, token)
        found.append(own if source == "auto" and own else sentences + own)
    return found


def mark_token(text: str, token: str) -> str:
    """The text with `{}` wherever it spells the token, read as a prompt is."""
    return re.sub(spelling_pattern(token), "{}", text) if token else text


def _from_file(photo: Photo, source: str, token: str) -> tuple[str, ...]:
    if source == "templates":
        return ()
    if photo.caption is None:
        if source in ("auto", "both"):
            return ()
        raise DataSetError(
            f"{photo.file} has no caption",
            "write what it shows in a text file of the same name ending in .txt, "
            "or train with the captions templates or both",
        )
    text = mark_token(photo.caption, token)
    return (text if "{}" in text else f"{{}}, {text}",)
