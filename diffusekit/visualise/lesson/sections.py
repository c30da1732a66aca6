"""What the page's explanations need to know: facts of the model in use, the reading, rows of pictures.

Returns HTML for every `$name` in `sections/`; whatever a prompt or a model can bring in is escaped here.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from ... import text
from ...display import format_count
from ...schedule import SAMPLERS, in_sigma_space, make_scheduler
from .. import contact_sheet
from ..trace import rms
from . import svg
from .html import format_digits, format_millions, format_number, per_run, render_template, thumbnail, token_id
from .payload import LessonRun, webp_uri

ANSWERS = {
    "epsilon": "the noise <span class='t-ep'>ε̂</span> that it sees in them",
    "v_prediction": "a mix of noise and picture, called v, from which both follow:"
    " <span class='t-x0'>x̂<sub>0</sub></span> = α·<span class='t-xt'>x<sub>t</sub></span> − σ·v and"
    " <span class='t-ep'>ε̂</span> = σ·<span class='t-xt'>x<sub>t</sub></span> + α·v (α and σ"
    " scaled so that α² + σ² = 1)",
    "sample": "the picture <span class='t-x0'>x̂<sub>0</sub></span> that it believes is behind them",
}


def section_values(runs: Sequence[LessonRun], data: dict[str, Any]) -> dict[str, str]:
    """Every `$name` of the sections' files."""
    first = runs[0]
    found = _of_text(runs) | _of_latents(first, data) | _of_unet(runs, data)
    found |= _of_guidance(runs) | _of_sampling(runs) | _of_numbers(runs)
    found["same"] = " Both pictures on this page began as this same noise." if len(runs) == 2 else ""
    return found


def _of_text(runs: Sequence[LessonRun]) -> dict[str, str]:
    model = runs[0].trace.model
    places = model.context_length
    tokenized = runs[0].tokenized
    repeated = text.padding_id(model) == tokenized.ids[tokenized.end]
    pieces = [sum(p["kind"] in ("piece", "learned") for p in run.pieces()) for run in runs]
    wide = sum(model.widths)
    shown = [_states(run) for run in runs]
    return {
        "vocabulary": f"{model.vocabulary_size:,}",
        "positions": str(places),
        "padding": " (which repeats the end mark)" if repeated else "",
        "readings": per_run(runs, [_reading(run) for run in runs]),
        "gist_words": f"{' and '.join(format_count(n, 'piece') for n in pieces)} in {places} places",
        "width": f"{wide:,}",
        "text_layers": str(model.text_layers),
        "text_size": format_millions(*model.text_encoders),
        "states_picture": shown[0],
        "states": per_run(
            runs,
            [
                f'<figure class="states"><img src="{picture}" alt="The text encoder\'s states of'
                f' “{escape(run.prompt)}” as a field of {places} rows and {wide} columns"></figure>'
                for run, picture in zip(runs, shown, strict=True)
            ],
        ),
        "gist_states": f"{places} × {wide:,} numbers",
    }


def _states(run: LessonRun) -> str:
    """The states as a field of colors, strongest at two and a half times their usual size."""
    return webp_uri(contact_sheet.signed_map(run.states, most=2.5 * rms(run.states)), 512)


def _reading(run: LessonRun) -> str:
    pieces = run.pieces()
    grid = "".join(f'<i class="{p["kind"]}"></i>' for p in pieces)
    rows = "".join(
        f'<li class="{p["kind"]}"><span class="piece">{escape(p["text"])}</span>'
        f'<span class="id">{escape(token_id(p))}</span></li>'
        for p in pieces
        if p["kind"] != "padding"
    )
    padding = sum(p["kind"] == "padding" for p in pieces)
    notes = [f"{format_count(padding, 'place')} of padding" if padding else "no room left"]
    for token in run.tokens:
        if any(word.text == token.token for word in run.words):
            held = "one learned vector" if token.count == 1 else f"{token.count} learned vectors"
            notes.append(
                f"{escape(token.token)} is no word: {held} stand"
                f"{'s' if token.count == 1 else ''} there in place of a row of the table"
            )
    cut = ""
    if run.tokenized.truncated:
        cut = f'<p class="cut">It did not fit; the model never saw: <q>{escape(run.tokenized.truncated[:600])}</q></p>'
    return (
        f'<ol class="pieces">{rows}</ol><div class="places" role="img" aria-label="'
        f'{len(pieces)} places: a start mark, the pieces, an end mark, {format_count(padding, "place")} of padding">'
        f'{grid}</div><p class="soft">{"; ".join(notes)}.</p>{cut}'
    )


def _of_latents(run: LessonRun, data: dict[str, Any]) -> dict[str, str]:
    model, (channels, height, width) = run.trace.model, run.steps[0].x_t.shape
    picture = run.trace.result.image
    cells, pixels = channels * height * width, 3 * picture.width * picture.height
    decoders = []
    for i in range(len(data["runs"])):
        decoders.append(
            f'<div class="row decoder js-only"><figure><div class="channels large" data-latents="denoised"'
            f' data-run="{i}" data-pick="{i}" tabindex="0" role="application" aria-label="Latents of the'
            f' guess; arrow keys move from cell to cell" aria-describedby="cell-{i}"></div>'
            f"<figcaption>the guess as {channels} channels</figcaption></figure>"
            '<span class="to" aria-hidden="true">→</span><figure><div class="screen small">'
            f'<img data-frame="denoised" data-run="{i}" alt="" src="{data["runs"][i]["frames"]["picture"]}">'
            f'<span class="spot" data-spot="{i}" hidden></span></div><figcaption>the guess in pixels</figcaption>'
            f'</figure><p class="cell" id="cell-{i}" aria-live="polite">point at a cell</p></div>'
        )
    return {
        "channels": str(channels),
        "height": str(height),
        "width_latent": str(width),
        "cells_start": f"{cells:,}",
        "cells_latent": f"{cells:,}",
        "pixels": f"{pixels:,}",
        "ratio": format_number(round(pixels / cells)),
        "factor": str(model.vae_scale_factor),
        "vae_size": format_millions(model.vae.decoder),
        "model": escape(model.name),
        "size_pixels": f"{picture.width} × {picture.height}",
        "picture": data["runs"][0]["frames"]["picture"],
        "decoders": per_run([run] * len(decoders), decoders),
        "gist_vae": f"{cells:,} numbers → {picture.width} × {picture.height} pixels",
        "seed": str(run.trace.result.record.settings.seed),
        "start": data["runs"][0]["frames"]["noised"][0],
        "gist_noise": f"{cells:,} random numbers",
    }


def _of_unet(runs: Sequence[LessonRun], data: dict[str, Any]) -> dict[str, str]:
    run, unet = runs[0], runs[0].trace.model.unet
    channels = list(unet.config.block_out_channels)
    attending = ["CrossAttn" in name for name in unet.config.down_block_types]
    size = (int(run.steps[0].x_t.shape[1]), int(run.steps[0].x_t.shape[2]))
    evaluations = len(run.trace.steps)
    prediction = run.trace.model.prediction_type
    found = {
        "unet_size": format_millions(unet),
        "evaluations": format_count(evaluations, "step"),
        "answer": ANSWERS[prediction],
        "ushape": svg.unet_diagram(size, channels, attending),
        "attentions": str(sum(name.endswith("attn2") for name, _ in unet.named_modules())),
        "turns": format_count(evaluations, "time"),
        "gist_unet": f"{format_millions(unet)} million numbers, asked {format_count(evaluations, 'time')}",
    }
    maps = [_maps(i, found["heat"]) for i, found in enumerate(data["runs"]) if found["heat"]]
    around = {**found, "maps": per_run(runs, maps)}
    found["looking"] = render_template("sections/looking.html", around) if maps else ""
    return found


def _maps(i: int, heat: dict[str, Any]) -> str:
    parts = "".join(
        f'<figure class="map-of"><canvas data-map="{i}" data-word="{word}" role="img" width="{heat["width"]}"'
        f' height="{heat["height"]}" aria-label="Where the model looked for {escape(name)}"></canvas>'
        f'<figcaption><b>{escape(name)}</b> <span data-most="{i}" data-word="{word}"></span></figcaption></figure>'
        for word, name in enumerate(heat["words"])
    )
    return f'<div class="maps js-only">{parts}</div>'


def _of_guidance(runs: Sequence[LessonRun]) -> dict[str, str]:
    settings = runs[0].trace.result.record.settings
    negative = settings.negative_prompt
    shots = (
        ("without", "t-wo", "without"),
        ("with", "t-wi", "with"),
        ("difference", "t-wi", "where they differ"),
        ("denoised", "t-x0", "x̂<sub>0</sub>, guided"),
    )
    rows = [
        f'<div class="row equation">{"".join(thumbnail(k, i, color, name) for k, color, name in shots)}</div>'
        for i in range(len(runs))
    ]
    second = ""
    if len(runs) == 2:
        second = ', the second prompt\'s by <b data-number="rms_guidance" data-run="1"></b>'
    return {
        "negative": f"with the words to avoid, <q>{escape(negative[:200])}</q>,"
        if negative
        else "with no words at all",
        "scale": format_number(settings.guidance_scale),
        "guided": per_run(runs, rows),
        "second": second,
        "gist_guidance": f"{format_number(settings.guidance_scale)} times what the words change",
    }


def _of_sampling(runs: Sequence[LessonRun]) -> dict[str, str]:
    run = runs[0]
    name = run.trace.result.record.settings.sampler
    sampler = SAMPLERS[name]
    scheduler = make_scheduler(name, run.trace.model.scheduler_config)
    exact = name in ("ddim", "euler")
    equations = [
        f'<div class="row equation">{thumbnail("noised", i, "t-xt", "x<sub>t</sub>")}<span class="op">=</span>'
        f'<span class="op by"><span data-number="alpha" data-run="{i}"></span> ·</span>'
        f'{thumbnail("denoised", i, "t-x0", "x̂<sub>0</sub>")}<span class="op">+</span><span class="op by">'
        f'<span data-number="sigma" data-run="{i}"></span> ·</span>{thumbnail("noise", i, "t-ep", "ε̂")}</div>'
        for i in range(len(runs))
    ]
    guess = (
        "<span class='t-x0'>x̂<sub>0</sub></span> = (<span class='t-xt'>x<sub>t</sub></span> − σ ·"
        " <span class='t-ep'>ε̂</span>) / α"
    )
    return {
        "equations": per_run(runs, equations),
        "recovered": "Whoever knows the noise knows the picture, and the other way round: "
        f"<span class='nowrap'>{guess}</span>.",
        "equal": "=" if exact else "≈",
        "sampler": escape(sampler.label),
        "sampler_note": escape(sampler.description),
        "space": "This sampler does not scale the picture down: α is always 1 and σ begins large; the U-Net"
        " sees the same latents, scaled back to unit size."
        if in_sigma_space(scheduler)
        else "",
        "gist_scheduler": f"{escape(sampler.label)}, {format_count(len(run.trace.steps), 'step')}",
    }


def _of_numbers(runs: Sequence[LessonRun]) -> dict[str, str]:
    first = runs[0]
    columns = {
        "step": "step",
        "timestep": "t",
        "alpha_bar": "ᾱ",
        "sigma": "σ",
        "snr": "SNR",
        "rms_noised": "rms x<sub>t</sub>",
        "rms_denoised": "rms x̂<sub>0</sub>",
        "rms_noise": "rms ε̂",
    }
    if first.is_guided:
        columns["rms_guidance"] = "rms of with − without"
    tables = []
    for run in runs:
        head = "".join(f'<th scope="col">{name}</th>' for name in columns.values())
        rows = "".join(
            f'<tr data-row="{at}">'
            + "".join(f"<td>{format_digits(m.numbers()[key])}</td>" for key in columns)
            + "</tr>"
            for at, m in enumerate(run.steps)
        )
        tables.append(
            '<div class="wide" tabindex="0" role="region" aria-label="Table of all steps">'
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        )
    return {
        "tables": per_run(runs, tables),
        "caption": "One row for each step, as measured while the picture was made. The slider marks the row; a click on"
        " a row moves the slider.",
        "trained": format_number(first.trace.model.scheduler_config.get("num_train_timesteps", 1000) - 1),
        "guidance_legend": "; of what the words change" if first.is_guided else "",
        "gist_numbers": f"{len(first.steps)} × {len(columns)}",
    }
