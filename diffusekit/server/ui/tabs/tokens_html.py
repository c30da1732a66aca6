"""HTML of the Tokens tab: the table of learned tokens, the card of one token, the words nearest to a sum."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from ....embeddings import LearnedToken
from ....errors import DiffusekitError
from ....inversion.run_folder import RunFolder, image_sheet
from ...storage.tokens import TokenSummary
from .. import html

# A click on a row, or its button's key, is the event `pick` with the token's name.
SCRIPT = """
element.addEventListener('click', (event) => {
  const row = event.target.closest('[data-name]');
  if (row) trigger('pick', {name: row.dataset.name});
});
"""
EMPTY = '<p class="empty">No learned tokens yet. Train one in the Learn tab, or import one.</p>'
SCORES = {
    "reconstruction": "Reconstruction",
    "editability": "Editability",
    "init_reconstruction": "Reconstruction of the initial word",
    "init_editability": "Editability of the initial word",
}
_COLUMNS = ("Name", "Token", "Vectors", "Base model", "Norm percentile", "Nearest words", "Reconstruction")
NEAREST = ("Nearest words", "Nearest words, second text encoder")
_METADATA = {
    "init": "Initial word",
    "steps": "Steps",
    "pictures": "Training images",
    "property": "Property",
    "learning_rate": "Learning rate",
    "seed": "Seed",
    "version": "Version",
    "sum": "Sum",
}


def render_table(rows: Sequence[TokenSummary], chosen: str) -> str:
    """All tokens; a click on a row opens its token. Files that cannot be read are named below."""
    if not rows:
        return EMPTY
    errors = "".join(html.render_notice(f"{row.name} cannot be read: {row.error}") for row in rows if row.error)
    head = "".join(f"<th scope=col>{name}</th>" for name in _COLUMNS)
    body = "".join(_render_row(row, row.name == chosen) for row in rows if not row.error)
    return (
        f'<div class="tokens"><table class="tokens-table"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{errors}"
    )


def _render_row(row: TokenSummary, is_chosen: bool) -> str:
    reconstruction = dict(row.scores).get("reconstruction")
    cells = (
        row.token,
        str(row.vectors),
        row.base,
        "" if row.percentile is None else f"{row.percentile:.0f} %",
        " | ".join(", ".join(words[:3]) for words in row.nearest),
        "" if reconstruction is None else f"{reconstruction:.2f}",
    )
    current = " aria-current=true" if is_chosen else ""
    button = f'<button type="button" data-name="{escape(row.name)}"{current}>{escape(row.name)}</button>'
    rest = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr data-name="{escape(row.name)}"{current}><th scope=row>{button}</th>{rest}</tr>'


def render_card(token: LearnedToken, summary: TokenSummary, folder: Path) -> str:
    """One token: its validation images, and everything that is known of it."""
    rows = {
        "Token": token.token,
        "In prompts": f"<{token.name}>",
        "Vectors": str(token.count),
        "Base model": summary.base,
        "Norm percentile": "" if summary.percentile is None else f"{summary.percentile:.0f} % of the model's words",
    }
    rows |= {title: ", ".join(words) for title, words in zip(NEAREST, summary.nearest, strict=False)}
    scores = dict(summary.scores)
    ordered = [*(name for name in SCORES if name in scores), *(name for name in scores if name not in SCORES)]
    rows |= {SCORES.get(name, name): f"{scores[name]:.3f}" for name in ordered}
    rows |= {label: token.metadata[name][:300] for name, label in _METADATA.items() if name in token.metadata}
    rows |= {"SHA-256": token.sha256[:16]}
    images = _render_images(RunFolder(folder, token.name))
    return f"<h3>{escape(token.name)}</h3>{images}{html.render_table(rows)}"


def _render_images(run: RunFolder) -> str:
    """The last validation images of the training run, if they are still there."""
    files = run.validation_images()
    if not files:
        return '<p class="estimate">There are no validation images of its training here.</p>'
    try:
        url = html.to_data_url(image_sheet(files[-1][1]))
    except (DiffusekitError, OSError):
        return ""
    return (
        f'<figure class="drawn"><img src="{escape(url)}" alt="validation images of {escape(run.name)}">'
        "<figcaption>Top row: the token alone. Bottom row: in other places and styles.</figcaption></figure>"
    )


def render_nearest(nearest: Sequence[Sequence[tuple[str, float]]]) -> str:
    """Words and their cosine similarity as bars, a list for each text encoder."""
    lists = [
        "".join(
            f'<li><span>{escape(word)}</span><meter min="0" max="1" value="{max(cosine, 0):.3f}"></meter>'
            f"<b>{cosine:.2f}</b></li>"
            for word, cosine in words
        )
        for words in nearest
    ]
    heads = [f"<p>{NEAREST[1]}</p>" if number else "" for number in range(len(lists))]
    return "".join(f'{head}<ol class="near">{rows}</ol>' for head, rows in zip(heads, lists, strict=True))
