"""Small pieces of HTML that several tabs use, and small copies of images as text.

Everything that came from a person, a prompt or a file passes `escape` here.
"""

from __future__ import annotations

import base64
import json
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
    """A sentence and what to do, read aloud when it appears."""
    role = "alert" if kind == "error" else "status"
    more = f'<span class="hint">{escape(hint)}</span>' if hint else ""
    return f'<p class="notice {kind}" role="{role}"><span>{escape(message)}</span>{more}</p>'


def render_meter(used: int, room: int, cut: str, learned: Sequence[str]) -> str:
    """How much of a prompt the model sees."""
    names = "".join(f'<span class="chip">{escape(name)}</span>' for name in learned)
    known = f"learned: {names}" if names else ""
    if not cut:
        return f'<p class="meter"><span>{used} / {room} tokens</span>{known}</p>'
    lost = cut if len(cut) < 200 else f"{cut[:200]}…"
    return (
        f'<p class="meter over" role="status"><span>{used} / {room} tokens</span>'
        f"not seen by the model: <del>{escape(lost)}</del>{known}</p>"
    )


def render_stage(previews: Sequence[str], share: float | None, words: str) -> str:
    """Where a picture comes into being: previews (addresses), how far it is, and a line of words."""
    columns = 1 if len(previews) < 2 else 2 if len(previews) < 5 else 4
    shown = "".join(
        f'<img src="{escape(address)}" alt="preview {i} of {len(previews)}">' for i, address in enumerate(previews, 1)
    )
    empty = '<div class="blank" aria-hidden="true"></div>'
    value = "" if share is None else f' value="{share:.4f}"'
    bar = f'<progress max="1"{value} aria-label="progress"></progress>'
    return (
        f'<figure class="stage"><div class="views" style="--columns:{columns}">{shown or empty}</div>'
        f'<figcaption>{bar}<span role="status">{escape(words)}</span></figcaption></figure>'
    )


def render_welcome() -> str:
    """What stands in the stage before the first picture."""
    return (
        '<figure class="stage welcome"><div><strong>Your pictures appear here.</strong>'
        "<span>Write what you want to see and press <kbd>Ctrl</kbd> <kbd>Enter</kbd>; <kbd>Esc</kbd> "
        "stops. Left empty, the form picks an example.</span>"
        "<span>Drop a picture anywhere on the page to have its settings back.</span></div></figure>"
    )


def render_table(rows: Mapping[str, Any]) -> str:
    """Names and values in two columns; what is empty is left out."""
    lines = "".join(
        f"<tr><th scope=row>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>"
        for name, value in rows.items()
        if value not in ("", None, (), [], {})
    )
    return f'<table class="facts">{lines}</table>' if lines else ""


def render_word_list(words: Sequence[str]) -> str:
    """Words for the page's script to complete in prompts, as an attribute nobody sees."""
    return f'<div data-words="{escape(json.dumps(list(words)))}"></div>'


def render_banner() -> str:
    """The name of the house, and the switch between light and dark."""
    return (
        '<header class="banner"><strong>diffusekit</strong>'
        '<button type="button" id="shade" aria-label="Switch between light and dark"></button></header>'
    )


def to_data_url(picture: Image.Image) -> str:
    """A picture as a `data:` address."""
    return f"data:image/webp;base64,{base64.b64encode(images.encode(picture, 'WEBP')).decode()}"


@lru_cache(maxsize=2000)
def thumbnail_url(path: Path, changed: float) -> str:
    """The address of a picture file's small copy, `changed` being its time; "" if it is damaged."""
    try:
        with images.open_image(path) as picture:
            picture.draft("RGB", (THUMBNAIL, THUMBNAIL))
            small = images.to_rgb(picture)
        small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        return to_data_url(small)
    except (DiffusekitError, OSError, ValueError):
        return ""
