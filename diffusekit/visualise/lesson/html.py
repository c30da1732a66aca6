"""The pieces that the page is put together from: files with gaps, rows, small pictures, numbers as people
write them.

Returns HTML; whatever a prompt can bring in is escaped here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import Any

from ..trace import rms
from . import svg
from .payload import SMALL, LessonRun

HERE = Path(__file__).parent


@lru_cache
def read_file(name: str) -> str:
    """The text of a file beside this one."""
    return (HERE / name).read_text(encoding="utf-8")


def render_template(name: str, values: Mapping[str, str]) -> str:
    """A file beside this one with every `$name` in it filled; `values` are HTML already."""
    return Template(read_file(name)).substitute(values)


def format_number(value: Any) -> str:
    """A number as people write it."""
    return f"{value:,g}" if isinstance(value, int | float) else str(value)


def token_id(piece: dict[str, Any]) -> str:
    return "learned" if piece["id"] is None else str(piece["id"])


def word_buttons(data: dict[str, Any]) -> str:
    """The words to point at, and whether maps are of the step or of all steps."""
    if not any(run["heat"] for run in data["runs"]):
        return ""
    rows = []
    for i, run in enumerate(data["runs"]):
        names = run["heat"]["words"]
        buttons = "".join(
            f'<button type="button" class="word{" mark" if n in (0, len(names) - 1) else ""}" data-run="{i}"'
            f' data-word="{n}" aria-pressed="false"><span>{escape(name)}</span>'
            f'<i data-share="{i}" data-word="{n}"></i></button>'
            for n, name in enumerate(names)
        )
        rows.append(f'<p class="words">{buttons}</p>')
    return (
        '<div class="asking js-only"><h2>Where did it look for each word?</h2>'
        f'{"".join(rows)}<div class="asking-foot"><label class="mean">'
        '<input type="checkbox" id="mean"> mean over all steps</label>'
        '<span class="told" id="told" aria-live="polite"></span></div></div>'
    )


def readout(runs: Sequence[LessonRun]) -> str:
    """The numbers of the current step; the script fills them in."""
    names = {
        "timestep": "timestep t",
        "alpha_bar": "picture ᾱ",
        "sigma": "noise σ",
        "snr": "signal to noise",
        "rms_noised": "size of x<sub>t</sub>",
        "rms_denoised": "size of x̂<sub>0</sub>",
        "rms_noise": "size of ε̂",
    }
    if runs[0].is_guided:
        names["rms_guidance"] = "words change"
    shared = ("timestep", "alpha_bar", "sigma", "snr")
    rows = []
    for key, name in names.items():
        values = [f'<span data-number="{key}" data-run="{i}"></span>' for i in range(1 if key in shared else len(runs))]
        rows.append(f"<div><dt>{name}</dt><dd>{' <i>|</i> '.join(values)}</dd></div>")
    channels = "".join(f'<div class="channels" data-latents="noised" data-run="{i}"></div>' for i in range(len(runs)))
    return (
        f'<div class="readout js-only"><dl>{"".join(rows)}</dl><figure class="small-latents">{channels}'
        "<figcaption>the latents x<sub>t</sub> themselves</figcaption></figure></div>"
    )


def charts(runs: Sequence[LessonRun]) -> str:
    """Curves over the steps, with a cursor that the script moves."""
    curves = []
    for i, run in enumerate(runs):
        guesses = [m.x0.float() for m in run.steps]
        moved = [rms(b - a) for a, b in pairwise(guesses)]
        tail = f", prompt {i + 1}" if len(runs) == 2 else ""
        curves.append((f"the guess moved{tail}", f"t-x0 s{i}", [0.0, *moved]))
        if run.is_guided:
            added = [rms(m.guidance) for m in run.steps if m.guidance is not None]
            curves.append((f"the words changed{tail}", f"t-wi s{i}", added))
    first = svg.variance_chart([m.alpha_bar for m in runs[0].steps])
    return f'<div class="charts">{first}{svg.line_chart("How much at each step", curves)}</div>'


def thumbnail(kind: str, i: int, color: str, name: str) -> str:
    """A small picture that follows the slider."""
    return (
        f'<figure class="shot js-only"><img data-frame="{kind}" data-run="{i}" alt="" decoding="sync"'
        f' width="{SMALL}" height="{SMALL}" src="data:,"><figcaption class="{color}">{name}</figcaption></figure>'
    )


def per_run(runs: Sequence[LessonRun], parts: Sequence[str]) -> str:
    """The parts of the runs below one another, each under its prompt when there are two."""
    if len(parts) < 2:
        return "".join(parts)
    return "".join(
        f'<div class="of-run"><h4><q>{escape(run.prompt)}</q></h4>{part}</div>'
        for run, part in zip(runs, parts, strict=True)
    )


def format_millions(*networks: Any) -> str:
    """How many numbers some networks have learned, in millions."""
    found = sum(parameter.numel() for network in networks for parameter in network.parameters()) / 1e6
    return f"{found:.1f}" if found < 100 else f"{found:,.0f}"


def format_digits(value: Any) -> str:
    """A number in a table: whole as it is, others with four digits that count."""
    if isinstance(value, int):
        return f"{value:,}"
    if value != value or value in (float("inf"), float("-inf")):
        return "∞"
    return f"{value:.2e}" if 0 < abs(value) < 1e-3 else f"{value:.4g}"
