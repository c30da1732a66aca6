"""Assemble the lesson page from the .html, .css and .js files of this folder and the payload.

Whatever a prompt can contain is escaped here, in `html` or in `sections`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from html import escape
from typing import Any

from ... import defaults
from ...display import format_count
from ...schedule import SAMPLERS
from ...settings import GenerateSettings, flags_of
from . import html, sections
from .html import read_file, render_template
from .payload import PREDICTIONS, LessonPayload, LessonRun

SCRIPTS = ("state", "draw", "stage", "words", "layers", "cells", "live")
BLANK = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
KINDS = {
    "noised": ("x<sub>t</sub>", "noisy latents", "t-xt"),
    "denoised": ("x̂<sub>0</sub>", "predicted image", "t-x0"),
    "noise": ("ε̂", "predicted noise", "t-ep"),
    "without": ("without", "no prompt", "t-wo"),
    "with": ("with", "your prompt", "t-wi"),
    "difference": ("change", "prompt effect", "t-wi"),
}
_SECTIONS = (
    ("words", "How the prompt is tokenized"),
    ("states", "What the text encoder computes"),
    ("noise", "Where the image starts"),
    ("unet", "What the U-Net predicts"),
    ("guidance", "What guidance does"),
    ("scheduler", "What the scheduler does"),
    ("vae", "How latents become pixels"),
    ("numbers", "All numbers"),
)


def render_page(runs: Sequence[LessonRun], data: LessonPayload) -> str:
    """Render the page of one or two runs as HTML."""
    first = runs[0]
    texts = sections.section_values(runs, data)
    kinds = [kind for kind in KINDS if kind not in PREDICTIONS or first.is_guided]
    frames = [run["frames"] for run in data["runs"]]
    prompts = " and ".join(f"“{run.prompt}”" for run in runs)
    values = {
        "title": escape(f"{prompts[:120]}: how a model turns noise into an image"),
        "style": read_file("lesson.css"),
        "script": _script(),
        "data": script_json(data),
        "blank": BLANK,
        "headline": " <span class='versus'>and</span> ".join(
            f"<q>{escape(run.prompt) or '(empty prompt)'}</q>" for run in runs
        ),
        "lede": _lede(runs),
        "pair": " pair" if len(runs) == 2 else "",
        "views": "".join(_view(i, run, frames[i], len(runs)) for i, run in enumerate(runs)),
        "kinds": "".join(_kind_button(kind, len(runs)) for kind in kinds),
        "words": html.word_buttons(data),
        "readout": html.readout(runs),
        "charts": html.charts(runs),
        "cells": str(len(first.step_indices) + 1),
        "last": str(len(first.step_indices)),
        "strips": "".join(f'<img alt="" src="{run["strip"]}">' for run in frames),
        "pipeline": render_template("pipeline.html", texts | _pipeline(first)),
        "sections": "".join(
            _section(number, name, title, texts)
            for number, (name, title) in enumerate(
                (s for s in _SECTIONS if s[0] != "guidance" or first.is_guided), start=1
            )
        ),
        "made": _made(runs),
        "settings": _settings(first),
        "command": escape(shell_command(runs)),
    }
    return render_template("lesson.html", values)


def script_json(data: Any) -> str:
    """Encode JSON for a script element: no `<` can close it, no line separator can break it."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    marks = {
        "<": "\\u003c",
        ">": "\\u003e",
        "&": "\\u0026",
        "\u2028": "\\u2028",
        "\u2029": "\\u2029",
    }
    for mark, code in marks.items():
        text = text.replace(mark, code)
    return text


def shell_command(runs: Sequence[LessonRun]) -> str:
    """The command that makes the page again, quoted for a shell."""
    model, settings = runs[0].trace.model, runs[0].trace.result.record.settings
    names = ("steps", "sampler", "spacing", "guidance_scale", "width", "height")
    usual = defaults.complete(settings.model_copy(update=dict.fromkeys(names)), model)
    own = {name: getattr(usual, name) for name in names}
    words = ["diffusekit", "visualise", "lesson", *(run.prompt for run in runs)]
    for name, field in GenerateSettings.model_fields.items():
        value = getattr(settings, name)
        if name in ("prompt", "images", "batch", "device") or value in (
            None,
            field.default,
            own.get(name, ()),
        ):
            continue
        flag = flags_of(GenerateSettings, name)[0]
        if value is True:
            words.append(flag)
            continue
        for each in value if isinstance(value, tuple) else (value,):
            words += [flag, f"{each:g}" if isinstance(each, float) else str(each)]
    if any(run.prompt.startswith("-") for run in runs):
        words = [
            *words[:3],
            *words[3 + len(runs) :],
            "-o",
            "lesson.html",
            "--",
            *words[3 : 3 + len(runs)],
        ]
        return shlex.join(words)
    return shlex.join([*words, "-o", "lesson.html"])


def _script() -> str:
    parts = "\n".join(read_file(f"script/{name}.js") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}\n}})();'


def _lede(runs: Sequence[LessonRun]) -> str:
    settings = runs[0].trace.result.record.settings
    steps, shown = len(runs[0].trace.steps), len(runs[0].step_indices)
    images = "these two images from the same noise" if len(runs) == 2 else "this image"
    note = f" ({shown} of them are shown)" if shown < steps else ""
    return (
        f"The model <b>{escape(settings.model)}</b> generated {images} in {format_count(steps, 'step')}{note}."
        '<span class="js-only"> Move the slider back to the noise, or press play. Point at a word to see where'
        " the model looked for it.</span>"
    )


def _view(i: int, run: LessonRun, frames: dict[str, Any], count: int) -> str:
    width, height = run.trace.result.image.size
    alt = escape(f"The final image of “{run.prompt}”")
    caption = f"<figcaption><q>{escape(run.prompt)}</q></figcaption>" if count == 2 else ""
    return (
        f'<figure class="view"><div class="screen" style="aspect-ratio: {width} / {height}">'
        f'<img class="main" data-frame="main" data-run="{i}" alt="{alt}" width="{width}"'
        f' height="{height}" decoding="sync" src="{frames["image"]}">'
        f'<canvas class="glow" data-glow="{i}" aria-hidden="true" hidden></canvas>'
        f'<span class="spot" data-spot="{i}" hidden></span>'
        f'<span class="tag js-only" data-tag="{i}"></span></div>{caption}</figure>'
    )


def _kind_button(kind: str, count: int) -> str:
    symbol, label, color = KINDS[kind]
    images = "".join(
        f'<img data-frame="{kind}" data-run="{i}" alt="" decoding="sync" src="{BLANK}">' for i in range(count)
    )
    pressed = "true" if kind == "noised" else "false"
    return (
        f'<button type="button" class="kind" data-kind="{kind}" aria-pressed="{pressed}">'
        f'<span class="pair">{images}</span><span class="name {color}">{symbol}</span>'
        f'<span class="says">{label}</span></button>'
    )


def _pipeline(run: LessonRun) -> dict[str, str]:
    """What the boxes of the overview show of a run."""
    tokens = [token for token in run.tokens() if token.kind in ("piece", "learned")]
    chips = "".join(f"<i>{escape(html.format_token_id(token))}</i>" for token in tokens[:6])
    scale = html.format_number(run.trace.result.record.settings.guidance_scale)
    guidance = render_template("pipeline_guidance.html", {"scale": scale, "blank": BLANK}) if run.is_guided else ""
    return {
        "chips": chips + ("<i>…</i>" if len(tokens) > 6 else ""),
        "blank": BLANK,
        "guidance_box": guidance,
        "prompt": escape(run.prompt[:80] + ("…" if len(run.prompt) > 80 else "")) or "(empty prompt)",
    }


def _section(number: int, name: str, title: str, texts: dict[str, str]) -> str:
    body = render_template(f"sections/{name}.html", texts)
    return (
        f'<section class="layer" id="layer-{name}"><h3><button type="button" class="unfold"'
        f' data-layer="{name}" id="title-{name}" aria-expanded="true" aria-controls="body-{name}">'
        f'<span class="n">{number}</span><span class="what">{title}</span>'
        f'<span class="gist">{texts[f"gist_{name}"]}</span></button></h3>'
        f'<div class="body" id="body-{name}" role="region" aria-labelledby="title-{name}">{body}</div></section>'
    )


def _made(runs: Sequence[LessonRun]) -> str:
    record = runs[0].trace.result.record
    version = record.versions.get("diffusekit", "")
    by = f"generated by {record.settings.model} with diffusekit {version}"
    if len(runs) == 2:
        return escape(f"The images were {by}. They show nothing real.")
    return escape(f"The image was {by}. It shows nothing real.")


def _settings(run: LessonRun) -> str:
    record = run.trace.result.record
    settings = record.settings
    assert settings.sampler is not None, "the settings of an image are complete"
    rows = {
        "model": settings.model,
        "revision": record.revision,
        "model hash": record.model_hash[:10],
        "seed": settings.seed,
        "steps": settings.steps,
        "sampler": SAMPLERS[settings.sampler].label,
        "spacing": settings.spacing or "",
        "guidance": html.format_number(settings.guidance_scale),
        "guidance rescale": f"{settings.guidance_rescale:g}" if settings.guidance_rescale else "",
        "negative prompt": settings.negative_prompt,
        "size": f"{settings.width} × {settings.height}",
        "learned tokens": ", ".join(settings.embedding),
        "device": record.device,
        "precision": record.dtype,
    }
    return "".join(
        f"<div><dt>{name}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in rows.items()
        if value not in ("", None)
    )
