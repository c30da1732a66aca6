"""The parts that the lesson page is built from: templates, the readout, charts and formatted numbers.

All functions return HTML. Whatever a prompt can contain is escaped here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import Any

from ...charts import Line, line_chart
from ..trace import rms
from .payload import SMALL, LessonPayload, LessonRun, LessonToken

HERE = Path(__file__).parent


@lru_cache
def read_file(name: str) -> str:
    """Read a file of this folder."""
    return (HERE / name).read_text(encoding="utf-8")


def render_template(name: str, values: Mapping[str, str]) -> str:
    """Fill in every `$name` of a file of this folder. `values` are HTML already."""
    return Template(read_file(name)).substitute(values)


def word_buttons(data: LessonPayload) -> str:
    """The words to point at, and the choice between the maps of one step and of all steps."""
    if not any(run["attention"] for run in data["runs"]):
        return ""
    rows = []
    for i, run in enumerate(data["runs"]):
        assert run["attention"] is not None, "all runs have attention maps, or none"
        names = run["attention"]["words"]
        buttons = "".join(
            f'<button type="button" class="word{" mark" if n in (0, len(names) - 1) else ""}" data-run="{i}"'
            f' data-word="{n}" aria-pressed="false"><span>{escape(name)}</span>'
            f'<i data-share="{i}" data-word="{n}"></i></button>'
            for n, name in enumerate(names)
        )
        rows.append(f'<p class="words">{buttons}</p>')
    return (
        '<div class="asking js-only"><h2>Where did the model look for each word?</h2>'
        f'{"".join(rows)}<div class="asking-foot"><label class="mean">'
        '<input type="checkbox" id="mean"> mean over all steps</label>'
        '<span class="word-shares" id="word-shares" aria-live="polite"></span></div></div>'
    )


def readout(runs: Sequence[LessonRun]) -> str:
    """The numbers of the current step. The script fills them in."""
    names = {
        "timestep": "timestep t",
        "alpha_bar": "image ᾱ",
        "sigma": "noise σ",
        "snr": "signal to noise",
        "rms_noised": "size of x<sub>t</sub>",
        "rms_denoised": "size of x̂<sub>0</sub>",
        "rms_noise": "size of ε̂",
    }
    if runs[0].is_guided:
        names["rms_guidance"] = "prompt effect"
    shared = ("timestep", "alpha_bar", "sigma", "snr")
    rows = []
    for key, name in names.items():
        values = [f'<span data-number="{key}" data-run="{i}"></span>' for i in range(1 if key in shared else len(runs))]
        rows.append(f"<div><dt>{name}</dt><dd>{' <i>|</i> '.join(values)}</dd></div>")
    channels = "".join(f'<div class="channels" data-latents="noised" data-run="{i}"></div>' for i in range(len(runs)))
    return (
        f'<div class="readout js-only"><dl>{"".join(rows)}</dl><figure class="small-latents">{channels}'
        "<figcaption>the channels of x<sub>t</sub></figcaption></figure></div>"
    )


def charts(runs: Sequence[LessonRun]) -> str:
    """Charts over the steps, with a cursor that the script moves."""
    shares = [step.alpha_bar for step in runs[0].steps]
    composition = [
        _line("image ᾱ", shares, "x0"),
        _line("noise 1 − ᾱ", [1 - share for share in shares], "ep"),
    ]
    changes = []
    for i, run in enumerate(runs):
        suffix = f", prompt {i + 1}" if len(runs) == 2 else ""
        moves = [rms(after.x0.float() - before.x0.float()) for before, after in pairwise(run.steps)]
        changes.append(_line(f"change of x̂₀{suffix}", [0.0, *moves], "x0", dashed=i > 0))
        if run.is_guided:
            effects = [rms(step.guidance) for step in run.steps if step.guidance is not None]
            changes.append(_line(f"effect of the prompt{suffix}", effects, "wi", dashed=i > 0))
    figures = (
        line_chart("What xₜ is made of", composition, subtitle="shares of the variance", cursor=True),
        line_chart("Changes at each step", changes, subtitle="root mean square", cursor=True),
    )
    return f'<div class="charts">{"".join(figures)}</div>'


def _line(name: str, values: Sequence[float], color: str, *, dashed: bool = False) -> Line:
    """A value for each step, counted from one. `color` is a variable of the style sheet."""
    return Line(name, list(enumerate(values, 1)), color=f"var(--{color})", dashed=dashed)


def thumbnail(kind: str, i: int, color: str, name: str) -> str:
    """A small image that follows the slider."""
    return (
        f'<figure class="shot js-only"><img data-frame="{kind}" data-run="{i}" alt="" decoding="sync"'
        f' width="{SMALL}" height="{SMALL}" src="data:,"><figcaption class="{color}">{name}</figcaption></figure>'
    )


def per_run(runs: Sequence[LessonRun], parts: Sequence[str]) -> str:
    """One part for each run, below its prompt when there are two."""
    if len(parts) < 2:
        return "".join(parts)
    return "".join(
        f'<div class="of-run"><h4><q>{escape(run.prompt)}</q></h4>{part}</div>'
        for run, part in zip(runs, parts, strict=True)
    )


def format_token_id(token: LessonToken) -> str:
    """The id of a token, or "learned"."""
    return "learned" if token.id is None else str(token.id)


def format_number(value: Any) -> str:
    """A setting for people: with thousands separators."""
    return f"{value:,g}" if isinstance(value, int | float) else str(value)


def format_digits(value: Any) -> str:
    """A number in a table: integers as they are, others with four significant digits."""
    if isinstance(value, int):
        return f"{value:,}"
    if value != value or value in (float("inf"), float("-inf")):
        return "∞"
    return f"{value:.2e}" if 0 < abs(value) < 1e-3 else f"{value:.4g}"


def format_millions(*networks: Any) -> str:
    """The number of parameters of some networks, in millions."""
    millions = sum(parameter.numel() for network in networks for parameter in network.parameters()) / 1e6
    return f"{millions:.1f}" if millions < 100 else f"{millions:,.0f}"
