"""Rows of thumbnails as escaped HTML: each a button, with the prompt for those who do not see it.

Knows no components.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape
from pathlib import Path

from ..html import thumbnail_url

# A click on a thumbnail, or its key, is the event `pick` with the picture's path.
SCRIPT = """
element.addEventListener('click', (event) => {
  const thumb = event.target.closest('.thumb');
  if (thumb) trigger('pick', {name: thumb.dataset.name});
});
"""


def render_thumbnails(
    outputs: Path, found: Sequence[tuple[str, float, str]], *, stars: Collection[str], shown: str
) -> str:
    """Thumbnails of (path, time, prompt); the picture that is open is marked."""
    return "".join(
        _thumb(name, thumbnail_url(outputs / name, changed), prompt, name in stars, name == shown)
        for name, changed, prompt in found
    )


def _thumb(name: str, address: str, prompt: str, starred: bool, shown: bool) -> str:
    words = prompt if len(prompt) < 300 else f"{prompt[:300]}…"
    said = escape(words or Path(name).stem)
    star = '<span class="star" aria-label="starred">★</span>' if starred else ""
    current = ' aria-current="true"' if shown else ""
    image = (
        f'<img src="{escape(address)}" alt="{said}" loading="lazy">'
        if address
        else (f'<span class="broken">{escape(Path(name).name)}</span>')
    )
    return (
        f'<button type="button" class="thumb" data-name="{escape(name)}" title="{said}"{current}>{image}{star}</button>'
    )


def render_grid(inside: str, empty: str) -> str:
    """The shelf, or the words for an empty one."""
    if not inside:
        return f'<p class="empty">{escape(empty)}</p>'
    return f'<div class="shelf" role="group" aria-label="Pictures, newest first">{inside}</div>'
