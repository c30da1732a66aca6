"""The page about a run: one HTML file that needs nothing else, and the strip of its previews.

Knows no model and no trainer: what it shows is handed to it as plain values and pictures.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from .. import atomic, images
from ..display import format_count
from .dataset import FileStatus

MAX_CELL = 256  # pixels a preview is wide in the strip
MAX_POINTS = 400  # of a curve
MAX_SHOWN = 24  # photos
_WIDTH, _HEIGHT = 460, 250  # of a chart, in its own units
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 436, 14, 216  # where its axes are

_STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfa; --ink: #1d2126; --soft: #5c6570; --line: #d9dce0;
  --card: #fff; --c0: #0b62c4; --c1: #b4480a; --c2: #5c6570 }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e8eaed; --soft: #a3abb5;
  --line: #363c43; --card: #1c2024; --c0: #6db3ff; --c1: #ffa05c; --c2: #a3abb5 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 66rem; padding: 1rem 1rem 3rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .6rem 0 .2rem } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem }
p { margin: .4rem 0 } .soft { color: var(--soft) } code { font-size: .95em }
.wide { overflow-x: auto; border-radius: .4rem } .wide img { display: block; max-width: none }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 23rem), 1fr)) }
figure { margin: 0; padding: .7rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .4rem } figcaption { font-weight: 600 }
svg { display: block; width: 100%; height: auto } svg text { font-size: 13px; fill: var(--soft) }
.grid { stroke: var(--line) } .curve { fill: none; stroke-width: 2; stroke-linejoin: round }
.level { stroke-width: 1.5; stroke-dasharray: 6 4 }
.level.second { stroke-dasharray: 2 3 } .mark { stroke: var(--soft); stroke-dasharray: 2 3 }
.s0 { stroke: var(--c0) } .s1 { stroke: var(--c1) } .s2 { stroke: var(--c2) }
.k0 { color: var(--c0) } .k1 { color: var(--c1) } .k2 { color: var(--c2) }
.keys { margin: .3rem 0 0; padding: 0; list-style: none; font-size: .9rem } .keys b { font-weight: 600 }
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


@dataclass(frozen=True)
class _Curve:
    """A measure over the steps, and the levels (dashed) it is to be read against."""

    name: str
    points: Sequence[tuple[float, float]]
    levels: Sequence[tuple[str, float]] = ()


def write(
    path: Path,
    *,
    title: str,
    token: str,
    settings: dict[str, Any],
    rows: Sequence[FileStatus],
    log: Sequence[dict[str, Any]],
    strip: Image.Image,
    photos: Sequence[Image.Image],
    notes: Sequence[str] = (),
) -> Path:
    """Write the page of a run. `log` are its lines as they were written, step by step.

    Raises `DiskError` when it cannot be written; a page that was there before stays then.
    """
    shown = [_picture(photo, f"photo {i + 1}", 256) for i, photo in enumerate(photos[:MAX_SHOWN])]
    more = len(photos) - len(shown)
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>The token <code>{escape(token)}</code>, learned from {format_count(len(photos), 'photo')}.</p>",
        *(f'<p class="soft">{escape(note)}</p>' for note in notes),
        "<h2>What the token drew</h2>",
        f'<div class="wide" tabindex="0">{_picture(strip, _strip_alt(token, log))}</div>',
        _charts(log),
        _scores(log),
        f'<h2>The photos</h2><div class="photos">{"".join(shown)}</div>',
        f'<p class="soft">and {more} more</p>' if more > 0 else "",
        _table(("file", "size", "", "what was done"), [_cells(row) for row in rows]),
        "<h2>Settings</h2>",
        _table(("setting", "value"), [(name, _plain(value)) for name, value in settings.items()]),
    ]
    told = "\n".join(part for part in body if part)
    page = _HEAD.format(title=escape(title), style=_STYLE) + told + "\n</main></body></html>\n"
    return atomic.write_atomic(path, page.encode("utf-8", "replace"))


def strip(
    previews: Sequence[tuple[int, Sequence[Image.Image]]],
    baseline: Sequence[Image.Image],
    labels: Sequence[str],
) -> Image.Image:
    """How the previews changed: a column for the init word's pictures and one for each (step, pictures).

    A row for each prompt in `labels`; every column holds one picture for each of them.
    """
    columns = [("init", baseline), *((f"{step:,}", pictures) for step, pictures in previews)]
    columns = [(name, pictures) for name, pictures in columns if pictures]
    assert columns and all(len(pictures) == len(labels) for _, pictures in columns)
    width, height = columns[0][1][0].size
    scale = min(1.0, MAX_CELL / max(width, height))
    width, height = max(round(width * scale), 1), max(round(height * scale), 1)
    letter = max(12, min(height // 10, 18))
    font = ImageFont.load_default(letter)
    line, margin, gap = round(letter * 1.3), max(110, width // 2), 4
    size = (margin + len(columns) * (width + gap), line + 6 + len(labels) * (height + gap))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for row, label in enumerate(labels):
        top = line + 6 + row * (height + gap)
        for number, words in enumerate(_wrapped(label, font, margin - 12, height // line)):
            draw.text((6, top + number * line), words, fill="black", font=font)
    for column, (name, pictures) in enumerate(columns):
        left = margin + column * (width + gap)
        draw.text((left + width / 2, 4), name, fill="black", font=font, anchor="ma")
        for row, picture in enumerate(pictures):
            small = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
            sheet.paste(small, (left, line + 6 + row * (height + gap)))
    return sheet


def _wrapped(text: str, font: Any, width: int, lines: int) -> list[str]:
    """The text in lines no wider than `width` pixels; what does not fit ends in an ellipsis."""
    found = [""]
    for word in text[:400].split():  # more is on no picture's height
        while len(word) > 1 and font.getlength(word) > width:  # a word that fits on no line
            head = 1
            while font.getlength(word[: head + 1]) <= width:
                head += 1
            found.append(word[:head])
            word = word[head:]
        longer = f"{found[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            found[-1] = longer
        else:
            found.append(word)
    found = [words for words in found if words]
    lines = max(lines, 1)
    return found if len(found) <= lines else [*found[: lines - 1], f"{found[lines - 1][:-1]}…"]


def _picture(picture: Image.Image, alt: str, most: int = 0) -> str:
    """An <img> that carries its own pixels: PNG when small, JPEG otherwise."""
    if most and max(picture.size) > most:
        picture = picture.copy()
        picture.thumbnail((most, most), Image.Resampling.LANCZOS)
    width, height = picture.size
    if most or width * height > 2_000_000:
        file, kind = BytesIO(), "jpeg"
        picture.convert("RGB").save(file, "JPEG", quality=88)
        data = file.getvalue()
    else:
        data, kind = images.encode(picture, "PNG"), "png"
    text = base64.b64encode(data).decode()
    return f'<img alt="{escape(alt)}" width="{width}" height="{height}" src="data:image/{kind};base64,{text}">'


def _strip_alt(token: str, log: Sequence[dict[str, Any]]) -> str:
    last = max((entry["step"] for entry in log if "step" in entry), default=0)
    return (
        f"A table of pictures: one row for each preview prompt with {token}, the first column drawn with "
        f"the init word, then one column for each preview up to step {last:,}"
    )


def _series(log: Sequence[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    """(step, value) wherever the log has a finite value; thinned to `MAX_POINTS`, the last one kept."""
    found = [
        (float(entry["step"]), float(value))
        for entry in log
        if isinstance(value := entry.get(key), int | float) and math.isfinite(value) and "step" in entry
    ]
    stride = max(1, math.ceil(len(found) / MAX_POINTS))
    return found[::-1][::stride][::-1]


def _charts(log: Sequence[dict[str, Any]]) -> str:
    baseline = next((entry["baseline"] for entry in log if entry.get("baseline")), {})
    best = next((entry["step"] for entry in reversed(log) if entry.get("best")), None)

    def level(key: str, name: str) -> list[tuple[str, float]]:
        value = baseline.get(key)
        return [(name, float(value))] if value is not None and math.isfinite(value) else []

    loss = _series(log, "smoothed") or _series(log, "loss")
    alike = level("reconstruction", "init word") + level("pairwise", "the photos among themselves")
    charts = (
        _chart("Loss", "smoothed", [_Curve("loss", loss)], best),
        _chart(
            "Scores",
            "likeness by CLIP",
            [
                _Curve("reconstruction (like the photos)", _series(log, "reconstruction"), alike),
                _Curve("editability (like the prompt)", _series(log, "editability"), level("editability", "init word")),
            ],
            best,
        ),
        _chart(
            "The vector",
            "lengths",
            [
                _Curve("distance from the start", _series(log, "moved")),
                _Curve("norm", _series(log, "norm")),
            ],
            best,
        ),
    )
    charts = [chart for chart in charts if chart]
    if not charts:
        return ""
    return f'<h2>How it learned</h2><div class="charts">{"".join(charts)}</div>'


def _chart(title: str, says: str, curves: Sequence[_Curve], best: float | None) -> str:
    """A figure with axes, ticks and a key with the last values; "" when there is nothing to draw."""
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return ""
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for c in curves for y in (*(y for _, y in c.points), *(y for _, y in c.levels))]
    across, up = _ticks(min(xs), max(xs)), _ticks(min(ys), max(ys))

    def place(x: float, y: float) -> tuple[float, float]:
        right = (x - across[0]) / (across[-1] - across[0])
        high = (y - up[0]) / (up[-1] - up[0])
        return _LEFT + right * (_RIGHT - _LEFT), _BOTTOM - high * (_BOTTOM - _TOP)

    parts = [_axes(across, up, place)]
    keys = []
    if best is not None and across[0] <= best <= across[-1]:
        x = place(best, up[0])[0]
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_BOTTOM}"/>')
        keys.append(f'<li class="k2">┊ best: step {best:,g}</li>')
    for number, curve in enumerate(curves):
        drawn, told = _drawn(number, curve, place)
        parts.append(drawn)
        keys.append(told)
    names = ", ".join(f"{c.name} ends at {c.points[-1][1]:.3g}" for c in curves)
    return (
        f'<figure><figcaption>{escape(title)} <span class="soft">{escape(says)}</span></figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(f"{title}: {names}")}">'
        f'{"".join(parts)}</svg><ul class="keys">{"".join(keys)}</ul></figure>'
    )


def _drawn(number: int, curve: _Curve, place: Any) -> tuple[str, str]:
    """A curve with its levels as SVG, and their lines in the key."""
    places = [place(x, y) for x, y in curve.points]
    if len(places) == 1:  # a line of no length is not drawn
        places.append((places[0][0] + 3, places[0][1]))
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [f'<polyline class="curve s{number}" points="{line}"/>']
    keys = [("━", curve.name, curve.points[-1][1])]
    for index, (name, value) in enumerate(curve.levels):
        y = place(curve.points[0][0], value)[1]
        second = " second" if index else ""
        parts.append(f'<line class="level{second} s{number}" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        keys.append(("┈" if index else "╌", name, value))
    told = (f"<li class='k{number}'>{sign} {escape(name)}: <b>{value:.3g}</b></li>" for sign, name, value in keys)
    return "".join(parts), "".join(told)


def _axes(across: list[float], up: list[float], place: Any) -> str:
    parts = []
    for y in up:
        height = place(across[0], y)[1]
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in across:
        left = place(x, up[0])[0]
        parts.append(f'<text x="{left:.1f}" y="{_BOTTOM + 18}" text-anchor="middle">{x:,g}</text>')
    return "".join(parts) + f'<text x="{_RIGHT}" y="{_HEIGHT - 2}" text-anchor="end">step</text>'


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers, of which the first is at most `low` and the last at least `high`."""
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    unit = next(unit * power for unit in (1, 2, 2.5, 5, 10) if unit * power >= rough * 0.999)
    first, last = math.floor(low / unit + 1e-9), math.ceil(high / unit - 1e-9)
    return [float(f"{number * unit:.10g}") for number in range(first, max(last, first + 1) + 1)]


def _scores(log: Sequence[dict[str, Any]]) -> str:
    """The previews in numbers, and the words nearest to the vector at each."""
    said = [entry for entry in log if "reconstruction" in entry or entry.get("best")]
    said = said or [entry for entry in log if entry.get("nearest")][-1:]
    best = next((entry for entry in reversed(said) if entry.get("best")), None)
    if not said:
        return ""
    rows = [
        (
            f"{entry.get('step', 0):,}" + (" (best)" if entry is best else ""),
            *(_plain(entry.get(key)) for key in ("reconstruction", "editability")),
            ", ".join(map(str, entry.get("nearest", ()))),
        )
        for entry in said
    ]
    heads = ("step", "reconstruction", "editability", "nearest words")
    return "<h2>Previews</h2>" + _table(heads, rows)


def _cells(row: FileStatus) -> tuple[str, ...]:
    return row.file, row.size, "used" if row.used else "skipped", row.note


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _plain(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
