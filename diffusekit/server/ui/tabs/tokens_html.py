"""Learned tokens as escaped HTML: the table, one of them with its pictures, the words near a sum.

Knows no components.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from ....embeddings import LearnedToken
from ....errors import DiffusekitError
from ....inversion.run_folder import RunFolder, image_sheet
from ...storage.tokens import TokenSummary
from ..html import render_notice, to_data_url
from ..html import render_table as facts_table

# A click on a row, or its button's key, is the event `pick` with the token's name.
SCRIPT = """
element.addEventListener('click', (event) => {
  const row = event.target.closest('[data-name]');
  if (row) trigger('pick', {name: row.dataset.name});
});
"""
EMPTY = '<p class="empty">No token is here yet: learn one in the Learn tab, or import one.</p>'
SCORES = {
    "reconstruction": "Like the pictures",
    "editability": "Obedient to the prompt",
    "init_reconstruction": "The first word: like the pictures",
    "init_editability": "The first word: obedient",
}
_HEAD = ("Name", "Token", "Vectors", "Base", "Longer than", "Near", "Likeness")
_SHOWN = ("init", "steps", "pictures", "property", "learning_rate", "seed", "version", "sum")


def render_table(rows: Sequence[TokenSummary], chosen: str) -> str:
    """All tokens; a row opens its token."""
    if not rows:
        return EMPTY
    bad = "".join(render_notice(f"left out: {row.error}", kind="note") for row in rows if row.error)
    head = "".join(f"<th scope=col>{name}</th>" for name in _HEAD)
    body = "".join(_row(row, row.name == chosen) for row in rows if not row.error)
    return (
        f'<div class="tokens"><table class="tokens-table"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{bad}"
    )


def _row(row: TokenSummary, chosen: bool) -> str:
    scores = dict(row.scores)
    likeness = scores.get("reconstruction")
    cells = (
        row.token,
        str(row.vectors),
        row.base,
        "" if row.percentile is None else f"{row.percentile:.0f} % of words",
        ", ".join(row.nearest[:3]),
        "" if likeness is None else f"{likeness:.2f}",
    )
    current = " aria-current=true" if chosen else ""
    button = f'<button type="button" data-name="{escape(row.name)}"{current}>{escape(row.name)}</button>'
    rest = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr data-name="{escape(row.name)}"{current}><th scope=row>{button}</th>{rest}</tr>'


def render_card(token: LearnedToken, about: TokenSummary, folder: Path) -> str:
    """One token: what it draws, and what is known of it; `folder` is where it lies."""
    rows = {
        "Token": token.token,
        "Write in prompts": f"<{token.name}>",
        "Vectors": str(token.count),
        "Base": about.base,
        "Length": "" if about.percentile is None else f"longer than {about.percentile:.0f} % of words",
        "Nearest words": ", ".join(about.nearest),
    }
    scores = dict(about.scores)
    ordered = [
        *(name for name in SCORES if name in scores),
        *(n for n in scores if n not in SCORES),
    ]
    rows |= {SCORES.get(name, name): f"{scores[name]:.3f}" for name in ordered}
    rows |= {
        name.replace("_", " ").capitalize(): token.metadata[name][:300] for name in _SHOWN if name in token.metadata
    }
    rows |= {"SHA-256": token.sha256[:16]}
    return f"<h3>{escape(token.name)}</h3>{_validation_images(RunFolder(folder, token.name))}{facts_table(rows)}"


def _validation_images(run: RunFolder) -> str:
    """The last validation images of a token's training, if they are still here."""
    files = run.validation_images()
    if not files:
        return '<p class="estimate">There are no pictures of its training here.</p>'
    try:
        shown = to_data_url(image_sheet(files[-1][1]))
    except (DiffusekitError, OSError):
        return ""
    words = "Above the token alone, below in other places and styles."
    return (
        f'<figure class="drawn"><img src="{escape(shown)}" alt="eight pictures of {escape(run.name)}">'
        f"<figcaption>{words}</figcaption></figure>"
    )


def render_nearest(found: Sequence[tuple[str, float]]) -> str:
    """Words and how near they are, as bars."""
    rows = "".join(
        f'<li><span>{escape(word)}</span><meter min="0" max="1" value="{max(cosine, 0):.3f}"></meter>'
        f"<b>{cosine:.2f}</b></li>"
        for word, cosine in found
    )
    return f'<ol class="near">{rows}</ol>'
