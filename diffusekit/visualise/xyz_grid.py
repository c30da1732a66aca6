"""X/Y/Z grids: parse the axes, list the settings of each image, and render the labeled sheet."""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

from ..errors import UsageError
from ..metadata import Record
from ..schedule import SAMPLERS
from ..settings import GenerateSettings, flags_of, validate
from .contact_sheet import GAP, INK, PAPER, SOFT, load_font, truncate_lines

MAX_IMAGES = 25
REPLACE = "prompt"
AXES = {
    "sampler": "Sampler",
    "steps": "Steps",
    "guidance_scale": "Guidance",
    "seed": "Seed",
    REPLACE: "Prompt: replace",
}
_RANGE = re.compile(r"(-?[\d.]+)\s*(?:-|\.\.)\s*(-?[\d.]+)\s*(?:\(\s*\+?\s*([\d.]+)\s*\)|\[\s*(\d+)\s*\])?")


@dataclass(frozen=True)
class Axis:
    """One direction of a grid: the setting that changes, and the (label, value) of each step along it."""

    name: str
    values: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class GridCell:
    """One image of a grid: its position and its settings."""

    x: int
    y: int
    z: int
    settings: dict[str, Any]


def parse_axis(name: str, text: str, *, limit: int = MAX_IMAGES) -> Axis:
    """Parse an axis: values separated by commas. Numbers may be ranges like `4-20 (+8)` or `1-9 [3]`.

    The prompt axis takes the words to replace, then their replacements. Raises `UsageError`.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise UsageError(f"{AXES[name]} has no values on its axis", "separate them by commas")
    if name == "sampler":
        return Axis(name, tuple(_sampler(part) for part in parts))
    if name == REPLACE:
        if len(parts) < 2:
            raise UsageError(
                f"{AXES[name]} has no replacement for {parts[0]!r}",
                "give the words to replace, then their replacements: cat, dog, owl",
            )
        return Axis(name, tuple((part, (parts[0], part)) for part in parts))
    numbers = [number for part in parts for number in _numbers(AXES[name], part, limit)]
    if name != "guidance_scale":
        numbers = [round(number) for number in numbers]
    labels = [f"{number:g}" if name == "guidance_scale" else str(number) for number in numbers]
    return Axis(name, tuple((f"{AXES[name]} {label}", number) for label, number in zip(labels, numbers, strict=True)))


def parse_sweep(text: str, *, limit: int = MAX_IMAGES) -> Axis:
    """Parse an axis of any setting, `steps=10,20,30`, or of words in the prompt, `prompt:red=blue,green`.

    A setting has the name of its flag or its field. Values with commas stand in quotes. Raises `UsageError`.
    """
    name, is_complete, values = text.partition("=")
    name, _, words = name.strip().partition(":")
    if not is_complete or not values.strip():
        raise UsageError(f"a sweep should be SETTING=VALUES, got {text[:60]!r}", "for example steps=10,20,30")
    if name == REPLACE:
        if not words.strip():
            raise UsageError(f"a sweep of the prompt needs words to replace, got {text[:60]!r}", f"{REPLACE}:red=blue")
        old = words.strip()
        return Axis(REPLACE, tuple((new, (old, new)) for new in _split_values(values)))
    field = _find_setting(name)
    if field in AXES:
        axis = parse_axis(field, values, limit=limit)
    else:
        axis = Axis(field, tuple((f"{name} {value}", value) for value in _split_values(values)))
    for _, value in axis.values:
        validate(GenerateSettings, {field: value})
    return axis


def _split_values(text: str) -> list[str]:
    return [value.strip() for value in next(csv.reader([text], skipinitialspace=True)) if value.strip()]


def _find_setting(name: str) -> str:
    """Return the field of a setting that decides about an image, given its name or a flag of it."""
    fields = [field for field in GenerateSettings.model_fields if field not in ("prompt", "images", "batch", "device")]
    known = {flag.lstrip("-"): field for field in fields for flag in flags_of(GenerateSettings, field)}
    known |= {field: field for field in fields}
    if name not in known:
        raise UsageError(
            f"there is no setting {name[:40]!r} to sweep", f"settings: {', '.join(known)}, {REPLACE}:WORDS"
        )
    return known[name]


def grid_cells(axes: Sequence[Axis | None], settings: Mapping[str, Any], *, limit: int = MAX_IMAGES) -> list[GridCell]:
    """List all images of a grid, row by row and sheet by sheet. Raises `UsageError` beyond `limit` images.

    All images have the same seed, unless the seed is an axis.
    """
    named = [a.name for a in axes if a]
    if not named:
        raise UsageError("the grid has no axis", "choose a setting for the X axis")
    if len(set(named)) < len(named):
        raise UsageError("two axes of the grid change the same setting", "choose another one for one of them")
    spans = [range(len(a.values)) if a else range(1) for a in axes]
    count = len(spans[0]) * len(spans[1]) * len(spans[2])
    if count > limit:
        raise UsageError(f"the grid has {count} images, the maximum is {limit}", "use fewer values")
    cells = []
    for z, y, x in itertools.product(spans[2], spans[1], spans[0]):
        changed = dict(settings) | {"images": 1}
        for axis, index in zip(axes, (x, y, z), strict=True):
            if axis:
                _apply(axis, axis.values[index][1], changed)
        cells.append(GridCell(x, y, z, changed))
    return cells


def sheet_record(first: Record, axes: Sequence[Axis | None], settings: Mapping[str, Any]) -> Record:
    """Describe how a sheet was made: the record of its `first` image, with the axes.

    Where an axis changes a setting, the value in `settings`, those of the whole grid, is recorded.
    """
    named = [a for a in axes if a]
    changed = {a.name for a in named}
    if REPLACE in changed:
        changed.add("negative_prompt")
    base = {name: settings[name] for name in changed if settings.get(name) is not None}
    titles = {a.name: AXES.get(a.name, a.name) for a in named}
    labels = {titles[a.name]: tuple(label.removeprefix(f"{titles[a.name]} ") for label, _ in a.values) for a in named}
    whole = validate(GenerateSettings, first.settings.model_dump() | base)
    return first.model_copy(update={"settings": whole, "axes": labels})


def _apply(axis: Axis, value: Any, settings: dict[str, Any]) -> None:
    """Write one value of an axis into the settings of an image."""
    if axis.name != REPLACE:
        settings[axis.name] = value
        return
    old, new = value
    if old not in settings["prompt"] + settings.get("negative_prompt", ""):
        raise UsageError(f"{old!r} is not in the prompt", "the axis begins with the words to replace")
    for name in ("prompt", "negative_prompt"):
        if name in settings:
            settings[name] = settings[name].replace(old, new)


def _sampler(text: str) -> tuple[str, str]:
    """(label, name) of a sampler, given by either."""
    labels = {f"{sampler.label} {sampler.schedule_type}".strip(): name for name, sampler in SAMPLERS.items()}
    for label, name in labels.items():
        if text.lower() in (label.lower(), name):
            return label, name
    raise UsageError(f"unknown sampler {text!r}", f"samplers: {', '.join(labels)}")


def _numbers(label: str, text: str, limit: int) -> list[float]:
    """Parse `7`, or a range: in steps of one, with a stride `(+2)`, or with a number of values `[5]`.

    A range of more than `limit` numbers ends one beyond it, which `grid_cells` refuses.
    """
    if len(text) > 60:
        raise UsageError(f"{label} takes numbers, got {text[:40]!r}…", "for example 4, 8, 16 or 4-20 (+8)")
    if re.fullmatch(r"\d+", text):
        return [int(text)]  # seeds are larger than a float is exact
    if re.fullmatch(r"-?\d*\.?\d+", text):
        return [float(text)]
    if not (match := _RANGE.fullmatch(text)):
        raise UsageError(f"{label} takes numbers, got {text[:40]!r}", "for example 4, 8, 16 or 4-20 (+8)")
    try:
        low, high = float(match[1]), float(match[2])
        if match[4]:
            count = min(max(int(match[4]), 1), limit + 1)
            return [low + (high - low) * i / max(count - 1, 1) for i in range(count)]
        stride = float(match[3] or 1)
        if stride <= 0 or high < low:
            raise ValueError
        return [low + i * stride for i in range(min(int((high - low) / stride + 1e-9) + 1, limit + 1))]
    except (ValueError, OverflowError):
        raise UsageError(f"{label} has an invalid range {text[:40]!r}", "for example 4-20 (+8)") from None


def render_sheet(axes: Sequence[Axis | None], images: Mapping[tuple[int, int, int], Image.Image]) -> Image.Image:
    """Render the images with the labels of the axes: x above, y at the left, one block for each z.

    Positions without an image stay empty, for example when the grid was stopped.
    """
    across, down, deep = ([label for label, _ in a.values] if a else [""] for a in axes)
    width = max(image.width for image in images.values())
    height = max(image.height for image in images.values())
    font = load_font(max(11, min(width // 12, 28)))
    line = round(font.size * 1.6)
    margin = _margin(down, font, width)
    block = (line if any(across) else 0) + len(down) * (height + GAP) + GAP
    top = line if any(deep) else 0
    size = (margin + len(across) * (width + GAP) + GAP, len(deep) * (block + top) + GAP)
    paper = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(paper)
    for z, name in enumerate(deep):
        start = GAP + z * (block + top)
        _draw_label(draw, (GAP, start), name, font, width=size[0] - 2 * GAP, color=SOFT)
        first = start + top + (line if any(across) else 0)
        for x, label in enumerate(across):
            _draw_label(draw, (margin + x * (width + GAP), start + top), label, font, width=width)
        for y, label in enumerate(down):
            corner = (GAP, first + y * (height + GAP) + (height - line) // 2)
            _draw_label(draw, corner, label, font, width=margin - 2 * GAP)
            for x in range(len(across)):
                if image := images.get((x, y, z)):
                    corner = (margin + x * (width + GAP), first + y * (height + GAP))
                    paper.paste(image.convert("RGB"), corner)
    return paper


def _margin(labels: Sequence[str], font: Any, width: int) -> int:
    longest = max(font.getlength(label[:80]) for label in labels)
    return math.ceil(min(longest, 1.5 * width)) + 3 * GAP if longest else GAP


def _draw_label(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, font: Any, *, width: int, color: str = INK
) -> None:
    draw.text(corner, truncate_lines(text[:200].replace("\n", " "), font, width), fill=color, font=font)
