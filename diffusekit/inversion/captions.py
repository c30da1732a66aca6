"""Captions of the training images: the paper's templates, or a text file beside the image.

In a caption, `{}` is the place of the token.
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
# Two of these are twice in the original list, and count twice.
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
    """The paper's captions for an "object" (27) or a "style" (19), each with one `{}`."""
    if property not in _TEMPLATES:
        raise UsageError(
            f"`property` must be object or style, got {property!r}",
            "an object is a thing or a face, a style is how an image is made",
        )
    return _TEMPLATES[property]


def make_captions(data: DataSet, property: str, source: str, *, token: str = "") -> list[tuple[str, ...]]:
    """Make the captions of each photo, with `{}` in the place of the token.

    `source` is "templates", "files" (the text file of each photo), "both", or "auto" (the text file of a photo that
    has one, templates for the others). Insert the token with `str.replace`, because a text may hold other braces.

    A text with `{}`, or with `token` as kohya's trainer expects it, has the token in that place. To any other text the
    token is prepended, "{}, in the grass", like A1111's "[name], [filewords]".

    Raises `UsageError` for an unknown source, and `DataSetError` when a photo has no text and "files" needs one.
    """
    if source not in _SOURCES:
        raise UsageError(
            f"`captions` must be one of {', '.join(_SOURCES)}, got {source!r}",
            "files are text files: 00.txt or 00.caption for 00.jpg",
        )
    templates = find_templates(property) if source != "files" else ()
    captions = []
    for photo in data.photos:
        own = _from_file(photo, source, token)
        captions.append(own if source == "auto" and own else templates + own)
    return captions


def mark_token(text: str, token: str) -> str:
    """Replace the token in a text by `{}`, wherever a prompt would find it."""
    return re.sub(spelling_pattern(token), "{}", text) if token else text


def _from_file(photo: Photo, source: str, token: str) -> tuple[str, ...]:
    if source == "templates":
        return ()
    if photo.caption is None:
        if source in ("auto", "both"):
            return ()
        raise DataSetError(
            f"{photo.file} has no caption",
            "describe it in a text file of the same name that ends in .txt, or set `captions` to templates or both",
        )
    text = mark_token(photo.caption, token)
    return (text if "{}" in text else f"{{}}, {text}",)
