"""The report of a finished run: one HTML file that needs no other file, and a strip of its validation images."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from .. import atomic, charts, images
from ..display import format_count
from ..embeddings import key_suffix
from ..settings import InvertSettings
from .dataset import FileStatus
from .run_folder import INIT_STEP, RunFolder, RunLog, read_images

MAX_CELL = 256  # pixels: width of a validation image in the strip
MAX_PHOTOS = 24
THUMBNAIL = 128  # pixels

_STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfa; --ink: #1d2126; --soft: #5c6570; --line: #d9dce0; --card: #fff }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e8eaed; --soft: #a3abb5; --line: #363c43;
  --card: #1c2024 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 66rem; padding: 1rem 1rem 3rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .6rem 0 .2rem } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem }
p { margin: .4rem 0 } .soft, small { color: var(--soft) } code { font-size: .95em }
.wide { overflow-x: auto; border-radius: .4rem } .wide img { display: block; max-width: none }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 23rem), 1fr)) }
figure { margin: 0; padding: .7rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .4rem } figcaption { font-weight: 600 } small { font-weight: 400 }
.photos { display: flex; flex-wrap: wrap; gap: .5rem } .photos img { width: 6.5rem; height: 6.5rem;
  object-fit: contain; background: var(--card); border-radius: .3rem }
table { border-collapse: collapse; width: 100%; font-size: .92rem }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line) }
th { font-weight: 600; overflow-wrap: normal }
"""
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style></head>
<body><main>
"""


def write_report(
    run: RunFolder,
    *,
    token: str,
    prompts: Sequence[str],
    settings: Mapping[str, Any],
    files: Sequence[FileStatus],
    photos: Sequence[Image.Image],
    scorer: str | None = None,
    stopped_early: bool = False,
    exactness: str = "",
) -> None:
    """Write the strip and the report of a run, from its log and validation images and what is given here.

    `prompts` are those of the validation images. `files` are what the folder of training images held. `scorer` is the
    name of the CLIP that measured the scores, None if there are none. `exactness` says what the same run gives.
    Raises `DiskError`; an earlier report stays in that case.
    """
    log = run.read_log()
    notes = _notes(log, scorer, stopped_early=stopped_early, exactness=exactness)
    columns = [
        ("init" if step == INIT_STEP else f"{step:,}", [_shrink(image) for image in read_images(path)])
        for step, path in run.validation_images()
    ]
    strip = draw_strip(columns, prompts)
    atomic.write_atomic(run.strip, images.encode(strip, "WEBP"))
    page = render_report(
        title=run.name,
        token=token,
        settings=settings,
        files=files,
        log=log,
        strip=strip,
        photos=[_shrink(images.crop_square(photo, THUMBNAIL)) for photo in photos],
        notes=notes,
    )
    atomic.write_atomic(run.report, page.encode("utf-8", "replace"))


def _notes(log: RunLog, scorer: str | None, *, stopped_early: bool, exactness: str) -> list[str]:
    notes = [f"Scores are measured by {scorer}."]
    if scorer is None:
        notes = ["No CLIP was found, so there are no scores, and the last vectors were kept."]
    elif not log.curve("reconstruction"):
        notes = ["The run was too short for scores, so the last vectors were kept. With more `steps` there are scores."]
    if stopped_early:
        notes.append("Training stopped early because the scores no longer improved.")
    return notes + ([exactness] if exactness else [])


def describe_exactness(settings: InvertSettings, *, is_exact: bool, processes: int) -> str:
    """Say in a sentence or two whether the same run gives the same token bit for bit, and where it does not."""
    if not settings.deterministic:
        return "Deterministic algorithms were turned off, so the same run can give a slightly different token."
    if not is_exact:
        return (
            f"The device {settings.device} has no deterministic algorithm for an operation of this model, so the same "
            "run can give a slightly different token."
        )
    same = [f"{torch.get_num_threads()} threads", f"PyTorch {torch.__version__}"]
    same += [f"{processes} processes"] if processes > 1 else []
    return (
        f"The same run gives the same token bit for bit with the same kind of processor, {', '.join(same[:-1])} and "
        f"{same[-1]}. Otherwise numbers are added in another order, and the token differs slightly."
    )


def render_report(
    *,
    title: str,
    token: str,
    settings: Mapping[str, Any],
    files: Sequence[FileStatus],
    log: RunLog,
    strip: Image.Image,
    photos: Sequence[Image.Image],
    notes: Sequence[str] = (),
) -> str:
    """The report as HTML. Everything in it is escaped, and images are embedded."""
    thumbnails = [_image(photo, f"training image {i + 1}", 256) for i, photo in enumerate(photos[:MAX_PHOTOS])]
    rest = len(photos) - len(thumbnails)
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>The token <code>{escape(token)}</code>, learned from {format_count(len(photos), 'image')}.</p>",
        *(f'<p class="soft">{escape(note)}</p>' for note in notes),
        "<h2>Validation images</h2>",
        f'<div class="wide" tabindex="0">{_image(strip, _describe_strip(token, log))}</div>',
        _charts(log),
        _scores(log),
        f'<h2>Training images</h2><div class="photos">{"".join(thumbnails)}</div>',
        f'<p class="soft">and {rest} more</p>' if rest > 0 else "",
        _table(("file", "size", "status", "note"), [_cells(file) for file in files]),
        "<h2>Settings</h2>",
        _table(("setting", "value"), [(name, _format(value)) for name, value in settings.items()]),
    ]
    head = _HEAD.format(title=escape(title), style=_STYLE)
    return head + "\n".join(part for part in body if part) + "\n</main></body></html>\n"


# --- the strip -------------------------------------------------------------------------------


def draw_strip(columns: Sequence[tuple[str, Sequence[Image.Image]]], prompts: Sequence[str]) -> Image.Image:
    """Draw a table of images: a (title, images) for each column, a prompt for each row."""
    assert columns and all(len(column) == len(prompts) for _, column in columns)
    width, height = columns[0][1][0].size
    scale = min(1.0, MAX_CELL / max(width, height))
    width, height = max(round(width * scale), 1), max(round(height * scale), 1)
    letter = max(12, min(height // 10, 18))
    font = ImageFont.load_default(letter)
    line, margin, gap = round(letter * 1.3), max(110, width // 2), 4
    size = (margin + len(columns) * (width + gap), line + 6 + len(prompts) * (height + gap))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for row, prompt in enumerate(prompts):
        top = line + 6 + row * (height + gap)
        for number, text in enumerate(_wrap(prompt, font, margin - 12, height // line)):
            draw.text((6, top + number * line), text, fill="black", font=font)
    for number, (title, column) in enumerate(columns):
        left = margin + number * (width + gap)
        draw.text((left + width / 2, 4), title, fill="black", font=font, anchor="ma")
        for row, image in enumerate(column):
            small = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
            sheet.paste(small, (left, line + 6 + row * (height + gap)))
    return sheet


def _wrap(text: str, font: Any, width: int, max_lines: int) -> list[str]:
    """The text in lines no wider than `width` pixels. What does not fit ends in an ellipsis."""
    lines = [""]
    for word in text[:400].split():  # no image is high enough for more
        while len(word) > 1 and font.getlength(word) > width:  # a word that is longer than a line
            head = 1
            while font.getlength(word[: head + 1]) <= width:
                head += 1
            lines.append(word[:head])
            word = word[head:]
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    lines = [line for line in lines if line]
    max_lines = max(max_lines, 1)
    return lines if len(lines) <= max_lines else [*lines[: max_lines - 1], f"{lines[max_lines - 1][:-1]}…"]


def _describe_strip(token: str, log: RunLog) -> str:
    return (
        f"Validation images in a table. Each row is a prompt with {token}. The first column is the init words, "
        f"the others are steps, up to step {log.step:,}."
    )


# --- parts of the page -----------------------------------------------------------------------


def _charts(log: RunLog) -> str:
    baseline = log.baseline
    best = ("best step", log.best["step"]) if log.best else None

    def level(name: str, key: str) -> list[tuple[str, float]]:
        return [(name, baseline[key])] if key in baseline else []

    references = level("of the init words", "reconstruction") + level("of the training images", "pairwise")
    scores = [
        charts.Line("reconstruction", log.curve("reconstruction"), references),
        charts.Line("editability", log.curve("editability"), level("of the init words", "editability")),
    ]
    loss = log.curve("smoothed") or log.curve("loss")
    first = charts.COLORS[:2]
    vectors = [
        charts.Line(f"{name}{second}", log.curve(f"{key}{suffix}"), color=color, dashed=bool(suffix))
        for suffix, second in (("", ""), (key_suffix(1), ", second encoder"))
        for (name, key), color in zip((("distance from the start", "moved"), ("norm", "norm")), first, strict=True)
    ]
    figures = (
        charts.line_chart("Loss", [charts.Line("loss", loss)], subtitle="smoothed", marker=best),
        charts.line_chart("Scores", scores, subtitle="similarity by CLIP", marker=best),
        charts.line_chart("Vectors", vectors, subtitle="mean of all vectors", marker=best),
    )
    return f'<h2>Training</h2><div class="charts">{"".join(figures)}</div>' if any(figures) else ""


def _scores(log: RunLog) -> str:
    """The scores of all validation images, and the nearest words at each step."""
    entries = log.evaluations or [entry for entry in log.entries if entry.get("nearest")][-1:]
    if not entries:
        return ""
    lists = {"nearest": "nearest words", f"nearest{key_suffix(1)}": "nearest words, second encoder"}
    lists = {key: title for key, title in lists.items() if key == "nearest" or any(key in entry for entry in entries)}
    rows = [
        (
            f"{entry['step']:,}" + (" (best)" if entry is log.best else ""),
            *(_format(entry.get(key)) for key in ("reconstruction", "editability")),
            *(", ".join(map(str, entry.get(key, ()))) for key in lists),
        )
        for entry in entries
    ]
    return "<h2>Scores</h2>" + _table(("step", "reconstruction", "editability", *lists.values()), rows)


def _image(image: Image.Image, alt: str, max_side: int = 0) -> str:
    """An <img> with its pixels embedded: PNG when small, JPEG otherwise."""
    image = _shrink(image, max_side) if max_side else image
    width, height = image.size
    if max_side or width * height > 2_000_000:
        file, kind = BytesIO(), "jpeg"
        image.convert("RGB").save(file, "JPEG", quality=88)
        data = file.getvalue()
    else:
        data, kind = images.encode(image, "PNG"), "png"
    text = base64.b64encode(data).decode()
    return f'<img alt="{escape(alt)}" width="{width}" height="{height}" src="data:image/{kind};base64,{text}">'


def _shrink(image: Image.Image, max_side: int = THUMBNAIL) -> Image.Image:
    """The image with no side longer than `max_side`."""
    scale = max_side / max(image.size)
    if scale >= 1:
        return image
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    return image.resize(size, Image.Resampling.LANCZOS)


def _cells(file: FileStatus) -> tuple[str, ...]:
    return file.file, file.size, "used" if file.used else "skipped", file.note


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _format(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(_format, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
