"""Small pieces of HTML that several tabs use, and small copies of images as text.

Everything that came from a person, a prompt or a file passes `escape` here.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from ... import images
from ...errors import DiffusekitError

THUMBNAIL = 192  # pixels of a thumbnail's longer side


def render_notice(message: str, hint: str = "", *, kind: Literal["error", "note"] = "note") -> str:
    """A message and a hint, read aloud by screen readers when it appears."""
    role = "alert" if kind == "error" else "status"
    more = f'<span class="hint">{escape(hint)}</span>' if hint else ""
    return f'<p class="notice {kind}" role="{role}"><span>{escape(message)}</span>{more}</p>'


def render_stage(previews: Sequence[str], fraction: float | None, status: str) -> str:
    """Where an image appears while it is generated: previews (data URLs), progress from 0 to 1, a status line."""
    columns = 1 if len(previews) < 2 else 2 if len(previews) < 5 else 4
    images = "".join(
        f'<img src="{escape(url)}" alt="preview {i} of {len(previews)}">' for i, url in enumerate(previews, 1)
    )
    empty = '<div class="blank" aria-hidden="true"></div>'
    value = "" if fraction is None else f' value="{fraction:.4f}"'
    bar = f'<progress max="1"{value} aria-label="progress"></progress>'
    return (
        f'<figure class="stage"><div class="views" style="--columns:{columns}">{images or empty}</div>'
        f'<figcaption>{bar}<span role="status">{escape(status)}</span></figcaption></figure>'
    )


def render_table(rows: Mapping[str, Any]) -> str:
    """Names and values in two columns, without empty values."""
    lines = "".join(
        f"<tr><th scope=row>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>"
        for name, value in rows.items()
        if value not in ("", None, (), [], {})
    )
    return f'<table class="facts">{lines}</table>' if lines else ""


def render_banner() -> str:
    """The name of the project, and the switch between light and dark."""
    return (
        '<header class="banner"><strong>diffusekit</strong>'
        '<button type="button" id="shade" aria-label="Switch between light and dark"></button></header>'
    )


def to_data_url(image: Image.Image) -> str:
    """An image as a `data:` URL."""
    return f"data:image/webp;base64,{base64.b64encode(images.encode(image, 'WEBP')).decode()}"


@lru_cache(maxsize=2000)
def thumbnail_url(path: Path, changed: float) -> str:
    """The data URL of an image file's thumbnail, "" if the file is damaged. `changed` is the file's time."""
    try:
        with images.open_image(path) as image:
            image.draft("RGB", (THUMBNAIL, THUMBNAIL))
            small = images.to_rgb(image)
        small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        return to_data_url(small)
    except (DiffusekitError, OSError, ValueError):
        return ""
