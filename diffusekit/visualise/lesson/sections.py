"""The values of the explanations: every `$name` in the files of `sections/`, as HTML.

Whatever a prompt or a model can contain is escaped here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ... import text
from ...display import format_count
from ...models import TextModel
from ...schedule import SAMPLERS, in_sigma_space, make_scheduler
from .. import contact_sheet
from ..trace import rms
from . import svg
from .html import format_digits, format_millions, format_number, format_token_id, per_run, render_template, thumbnail
from .payload import LessonPayload, LessonRun, webp_uri

ANSWERS = {
    "epsilon": "the noise <span class='t-ep'>ε̂</span> in the latents",
    "v_prediction": "a mix of noise and image, called v, which gives both:"
    " <span class='t-x0'>x̂<sub>0</sub></span> = α·<span class='t-xt'>x<sub>t</sub></span> − σ·v and"
    " <span class='t-ep'>ε̂</span> = σ·<span class='t-xt'>x<sub>t</sub></span> + α·v (α and σ"
    " scaled so that α² + σ² = 1)",
    "sample": "the image <span class='t-x0'>x̂<sub>0</sub></span> behind the noise",
}

_ONE_ENCODER = "They are all that the U-Net ever learns about the prompt."
_TWO_ENCODERS = (
    "The states of the second encoder stand to the right of those of the first. Beside them the U-Net gets one pooled "
    "state of the whole prompt, and the size of the image."
)


def section_values(runs: Sequence[LessonRun], data: LessonPayload) -> dict[str, str]:
    """Compute every `$name` of the files in `sections/`."""
    values = _text_values(runs) | _latent_values(runs[0], data) | _unet_values(runs, data)
    values |= _guidance_values(runs) | _sampling_values(runs) | _table_values(runs)
    values["same"] = " Both images on this page started from this noise." if len(runs) == 2 else ""
    return values


def _text_values(runs: Sequence[LessonRun]) -> dict[str, str]:
    model = runs[0].trace.model
    positions, width = model.context_length, sum(model.widths)
    tokenized = runs[0].tokenized
    repeats_end = text.padding_id(model) == tokenized.ids[tokenized.end]
    counts = [sum(token.kind in ("piece", "learned") for token in run.tokens()) for run in runs]
    images = [_states_image(run) for run in runs]
    figures = [
        f'<figure class="states"><img src="{image}" alt="The text encoder\'s states of'
        f' “{escape(run.prompt)}” as a field of {positions} rows and {width} columns"></figure>'
        for run, image in zip(runs, images, strict=True)
    ]
    return {
        "vocabulary": f"{model.vocabulary_size:,}",
        "positions": str(positions),
        "padding": " (which repeats the end token)" if repeats_end else "",
        "readings": per_run(runs, [_reading(run) for run in runs]),
        "gist_words": f"{' and '.join(format_count(n, 'token') for n in counts)} in {positions} positions",
        "width": f"{width:,}",
        "encoders": _describe_encoders(model),
        "states_use": _ONE_ENCODER if len(model.widths) == 1 else _TWO_ENCODERS,
        "states_image": images[0],
        "states": per_run(runs, figures),
        "gist_states": f"{positions} × {width:,} numbers",
    }


def _describe_encoders(model: TextModel) -> str:
    """Say what the text encoders are, up to the verb of what they do with each position."""
    size = f"{model.text_layers} layers, {format_millions(*model.text_encoders)} million parameters"
    if len(model.widths) == 1:
        row = f"Each id selects a row of {model.widths[0]:,} numbers from a table."
        return f"{row} Then the <b>text encoder</b> ({size}) mixes"
    first, second = (f"{width:,}" for width in model.widths)
    return (
        f"Each id selects a row of {first} numbers from one table and a row of {second} from another. Then <b>two text "
        f"encoders</b> (together {size}), each with its own table, mix"
    )


def _states_image(run: LessonRun) -> str:
    """The states as a field of colors, at full color from two and a half times their usual size."""
    return webp_uri(contact_sheet.signed_map(run.states, vmax=2.5 * rms(run.states)), 512)


def _reading(run: LessonRun) -> str:
    """The tokens of a prompt, the positions they fill, and what was cut off."""
    tokens = run.tokens()
    grid = "".join(f'<i class="{token.kind}"></i>' for token in tokens)
    items = "".join(
        f'<li class="{token.kind}"><span class="piece">{escape(token.text)}</span>'
        f'<span class="id">{escape(format_token_id(token))}</span></li>'
        for token in tokens
        if token.kind != "padding"
    )
    padding = sum(token.kind == "padding" for token in tokens)
    notes = [f"{format_count(padding, 'position')} of padding." if padding else "All positions are used."]
    for learned in run.learned_tokens:
        if any(word.text == learned.token for word in run.words):
            vectors = "learned vector" if learned.count == 1 else f"{learned.count} learned vectors"
            notes.append(f"{escape(learned.token)} is a learned token. It uses its {vectors}, not rows of the table.")
    cut = ""
    if run.tokenized.truncated:
        cut = f'<p class="cut">Too long. The model never saw: <q>{escape(run.tokenized.truncated[:600])}</q></p>'
    label = f"{len(tokens)} positions: start token, prompt, end token, {format_count(padding, 'position')} of padding"
    return (
        f'<ol class="pieces">{items}</ol><div class="places" role="img" aria-label="{label}">'
        f'{grid}</div><p class="soft">{" ".join(notes)}</p>{cut}'
    )


def _latent_values(run: LessonRun, data: LessonPayload) -> dict[str, str]:
    model, (channels, height, width) = run.trace.model, run.steps[0].x_t.shape
    image = run.trace.result.image
    cells, pixels = channels * height * width, 3 * image.width * image.height
    frames = data["runs"][0]["frames"]
    decoders = [_decoder(i, channels, one["frames"]["image"]) for i, one in enumerate(data["runs"])]
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
        "size_pixels": f"{image.width} × {image.height}",
        "image": frames["image"],
        "decoders": per_run([run] * len(decoders), decoders),
        "gist_vae": f"{cells:,} numbers → {image.width} × {image.height} pixels",
        "seed": str(run.trace.result.record.settings.seed),
        "start": frames["noised"][0],
        "gist_noise": f"{cells:,} random numbers",
    }


def _decoder(i: int, channels: int, image: str) -> str:
    """The channels of the predicted image beside its pixels, with a cell to point at."""
    return (
        f'<div class="row decoder js-only"><figure><div class="channels large" data-latents="denoised"'
        f' data-run="{i}" data-pick="{i}" tabindex="0" role="application" aria-label="Latents of the'
        f' predicted image; arrow keys move from cell to cell" aria-describedby="cell-{i}"></div>'
        f"<figcaption>the predicted image as {channels} channels</figcaption></figure>"
        '<span class="to" aria-hidden="true">→</span><figure><div class="screen small">'
        f'<img data-frame="denoised" data-run="{i}" alt="" src="{image}">'
        f'<span class="spot" data-spot="{i}" hidden></span></div>'
        "<figcaption>the predicted image in pixels</figcaption></figure>"
        f'<p class="cell" id="cell-{i}" aria-live="polite">point at a cell</p></div>'
    )


def _unet_values(runs: Sequence[LessonRun], data: LessonPayload) -> dict[str, str]:
    run, unet = runs[0], runs[0].trace.model.unet
    attending = ["CrossAttn" in name for name in unet.config.down_block_types]
    _, height, width = run.steps[0].x_t.shape
    evaluations = len(run.trace.steps)
    values = {
        "unet_size": format_millions(unet),
        "evaluations": format_count(evaluations, "step"),
        "answer": ANSWERS[run.trace.model.prediction_type],
        "ushape": svg.unet_diagram((height, width), list(unet.config.block_out_channels), attending),
        "attentions": str(sum(name.endswith("attn2") for name, _ in unet.named_modules())),
        "turns": format_count(evaluations, "time"),
        "gist_unet": f"{format_millions(unet)} million parameters, runs {format_count(evaluations, 'time')}",
    }
    maps = [_maps(i, one["attention"]) for i, one in enumerate(data["runs"]) if one["attention"]]
    looking = render_template("sections/looking.html", values | {"maps": per_run(runs, maps)}) if maps else ""
    return values | {"looking": looking}


def _maps(i: int, attention: dict[str, Any]) -> str:
    figures = "".join(
        f'<figure class="map-of"><canvas data-map="{i}" data-word="{word}" role="img" width="{attention["width"]}"'
        f' height="{attention["height"]}" aria-label="Where the model looked for {escape(name)}"></canvas>'
        f'<figcaption><b>{escape(name)}</b> <span data-most="{i}" data-word="{word}"></span></figcaption></figure>'
        for word, name in enumerate(attention["words"])
    )
    return f'<div class="maps js-only">{figures}</div>'


def _guidance_values(runs: Sequence[LessonRun]) -> dict[str, str]:
    settings = runs[0].trace.result.record.settings
    negative = settings.negative_prompt
    thumbnails = (
        ("without", "t-wo", "without"),
        ("with", "t-wi", "with"),
        ("difference", "t-wi", "where they differ"),
        ("denoised", "t-x0", "x̂<sub>0</sub>, guided"),
    )
    rows = ["".join(thumbnail(kind, i, color, name) for kind, color, name in thumbnails) for i in range(len(runs))]
    second = ', with the second prompt by <b data-number="rms_guidance" data-run="1"></b>' if len(runs) == 2 else ""
    scale = format_number(settings.guidance_scale)
    return {
        "negative": f"with the negative prompt <q>{escape(negative[:200])}</q>" if negative else "without a prompt",
        "scale": scale,
        "guided": per_run(runs, [f'<div class="row equation">{row}</div>' for row in rows]),
        "second": second,
        "gist_guidance": f"scale {scale}",
    }


def _sampling_values(runs: Sequence[LessonRun]) -> dict[str, str]:
    run = runs[0]
    name = run.trace.result.record.settings.sampler
    assert name is not None, "the settings of an image are complete"
    sampler = SAMPLERS[name]
    scheduler = make_scheduler(name, run.trace.model.scheduler_config)
    equations = [
        f'<div class="row equation">{thumbnail("noised", i, "t-xt", "x<sub>t</sub>")}<span class="op">=</span>'
        f'<span class="op by"><span data-number="alpha" data-run="{i}"></span> ·</span>'
        f'{thumbnail("denoised", i, "t-x0", "x̂<sub>0</sub>")}<span class="op">+</span><span class="op by">'
        f'<span data-number="sigma" data-run="{i}"></span> ·</span>{thumbnail("noise", i, "t-ep", "ε̂")}</div>'
        for i in range(len(runs))
    ]
    solved = (
        "<span class='t-x0'>x̂<sub>0</sub></span> = (<span class='t-xt'>x<sub>t</sub></span> − σ ·"
        " <span class='t-ep'>ε̂</span>) / α"
    )
    space = (
        "This sampler does not scale the image down: α is always 1, and σ starts large. The U-Net gets the same"
        " latents, scaled back to unit variance."
    )
    return {
        "equations": per_run(runs, equations),
        "recovered": f"So a predicted noise also gives a predicted image: <span class='nowrap'>{solved}</span>.",
        "equal": "=" if name in ("ddim", "euler") else "≈",
        "sampler": escape(sampler.label),
        "sampler_note": escape(sampler.description),
        "space": space if in_sigma_space(scheduler) else "",
        "gist_scheduler": f"{escape(sampler.label)}, {format_count(len(run.trace.steps), 'step')}",
    }


def _table_values(runs: Sequence[LessonRun]) -> dict[str, str]:
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
    return {
        "tables": per_run(runs, [_table(run, columns) for run in runs]),
        "caption": "One row per step, measured while the image was generated. The slider marks a row. Click a row to"
        " move the slider.",
        "trained": format_number(first.trace.model.scheduler_config.get("num_train_timesteps", 1000) - 1),
        "guidance_legend": ", of what the prompt changes" if first.is_guided else "",
        "gist_numbers": f"{len(first.steps)} × {len(columns)}",
    }


def _table(run: LessonRun, columns: Mapping[str, str]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in columns.values())
    rows = []
    for at, step in enumerate(run.steps):
        numbers = step.numbers()
        cells = "".join(f"<td>{format_digits(numbers[key])}</td>" for key in columns)
        rows.append(f'<tr data-row="{at}">{cells}</tr>')
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="Table of all steps">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
