"""X/Y/Z grids: what an axis takes, which pictures that makes, and the sheet with its labels.

Knows no jobs and no page.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

from ..errors import UsageError
from ..metadata import Record
from ..server.ui.tabs.generate_form import sampler_choices
from ..settings import GenerateSettings, validate
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
    """One direction of a grid: the setting that changes, and (label, value) of each place."""

    name: str
    values: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class GridCell:
    """One picture of a grid: where it stands, and what is changed for it."""

    x: int
    y: int
    z: int
    settings: dict[str, Any]


def parse_axis(name: str, text: str) -> Axis:
    """An axis from what somebody typed: values with commas; numbers also as `4-20 (+8)` or `1-9 [3]`.

    For the prompt: the words to replace, then what stands in their place, in turn. Raises `UsageError`.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise UsageError(f"{AXES[name]} has no values on its axis", "give them with commas between")
    if name == "sampler":
        return Axis(name, tuple(_sampler(part) for part in parts))
    if name == REPLACE:
        if len(parts) < 2:
            raise UsageError(
                f"{AXES[name]} has nothing to put in place of {parts[0]!r}",
                "the words to replace, then others: cat, dog, owl",
            )
        return Axis(name, tuple((part, (parts[0], part)) for part in parts))
    numbers = [number for part in parts for number in _numbers(AXES[name], part)]
    kept = numbers if name == "guidance_scale" else [round(number) for number in numbers]
    return Axis(
        name,
        tuple(
            (f"{AXES[name]} {number:g}" if name == "guidance_scale" else f"{AXES[name]} {number}", number)
            for number in kept
        ),
    )


def grid_cells(axes: Sequence[Axis | None], settings: Mapping[str, Any]) -> list[GridCell]:
    """All pictures of a grid, row by row, sheet by sheet; raises `UsageError` beyond `MOST`.

    The seed is the same for all unless it is an axis, and each cell is one picture.
    """
    named = [a.name for a in axes if a]
    if not named:
        raise UsageError("the grid has no axis", "choose what changes from left to right")
    if len(set(named)) < len(named):
        raise UsageError("two axes of the grid change the same thing", "choose another for one")
    spans = [range(len(a.values)) if a else range(1) for a in axes]
    count = len(spans[0]) * len(spans[1]) * len(spans[2])
    if count > MAX_IMAGES:
        raise UsageError(f"the grid has {count} pictures, and at most {MAX_IMAGES} fit", "use fewer values")
    found = []
    for z, y, x in itertools.product(spans[2], spans[1], spans[0]):
        changed = dict(settings) | {"images": 1}
        for each, place in zip(axes, (x, y, z), strict=True):
            if each:
                _change(changed, each, each.values[place][1])
        found.append(GridCell(x, y, z, changed))
    return found


def sheet_record(first: Record, axes: Sequence[Axis | None], settings: Mapping[str, Any]) -> Record:
    """How a sheet was made: as its `first` picture, but with what the `settings` of the whole grid say
    where an axis changes them; and the axes."""
    named = [a for a in axes if a]
    changed = {a.name for a in named}
    if REPLACE in changed:
        changed.add("negative_prompt")
    base = {name: settings[name] for name in changed if name in settings}
    labels = {AXES[a.name]: tuple(label.removeprefix(f"{AXES[a.name]} ") for label, _ in a.values) for a in named}
    whole = validate(GenerateSettings, first.settings.model_dump() | base)
    return first.model_copy(update={"settings": whole, "axes": labels})


def _change(settings: dict[str, Any], each: Axis, value: Any) -> None:
    if each.name != REPLACE:
        settings[each.name] = value
        return
    old, new = value
    if old not in settings["prompt"] + settings.get("negative_prompt", ""):
        raise UsageError(f"{old!r} is not in the prompt", "the first words of the axis are replaced")
    for name in ("prompt", "negative_prompt"):
        if name in settings:
            settings[name] = settings[name].replace(old, new)


def _sampler(text: str) -> tuple[str, str]:
    for label, name in sampler_choices():
        if text.lower() in (label.lower(), name):
            return label, name
    labels = ", ".join(label for label, _ in sampler_choices())
    raise UsageError(f"Sampler {text!r} is not known", f"there are: {labels}")


def _numbers(label: str, text: str) -> list[float]:
    """`7`, or the numbers of a range: by ones, by a stride `(+2)`, or so many `[5]`."""
    if re.fullmatch(r"\d+", text):
        return [int(text[:40])]  # seeds are larger than a float is exact
    if re.fullmatch(r"-?\d*\.?\d+", text):
        return [float(text)]
    if not (found := _RANGE.fullmatch(text)):
        raise UsageError(f"{label} takes numbers, got {text[:40]!r}", "like 4, 8, 16 or 4-20 (+8)")
    try:
        low, high = float(found[1]), float(found[2])
        if found[4]:
            count = min(max(int(found[4]), 1), MAX_IMAGES + 1)
            return [low + (high - low) * i / max(count - 1, 1) for i in range(count)]
        stride = float(found[3] or 1)
        if stride <= 0 or high < low:
            raise ValueError
        return [low + i * stride for i in range(min(int((high - low) / stride + 1e-9) + 1, MAX_IMAGES + 1))]
    except (ValueError, OverflowError):
        raise UsageError(f"{label} cannot go through {text[:40]!r}", "like 4-20 (+8)") from None


def render_sheet(axes: Sequence[Axis | None], pictures: Mapping[tuple[int, int, int], Image.Image]) -> Image.Image:
    """The pictures with the axes' labels: x above, y at the left, one block for each z.

    Places without a picture stay empty, as when the grid was stopped.
    """
    across, down, deep = ([label for label, _ in a.values] if a else [""] for a in axes)
    width = max(picture.width for picture in pictures.values())
    height = max(picture.height for picture in pictures.values())
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
        _line(draw, (GAP, start), name, font, (size[0] - 2 * GAP, SOFT))
        first = start + top + (line if any(across) else 0)
        for x, label in enumerate(across):
            _line(draw, (margin + x * (width + GAP), start + top), label, font, (width, INK))
        for y, label in enumerate(down):
            place = (GAP, first + y * (height + GAP) + (height - line) // 2)
            _line(draw, place, label, font, (margin - 2 * GAP, INK))
            for x in range(len(across)):
                if picture := pictures.get((x, y, z)):
                    corner = (margin + x * (width + GAP), first + y * (height + GAP))
                    paper.paste(picture.convert("RGB"), corner)
    return paper


def _margin(labels: Sequence[str], font: Any, width: int) -> int:
    longest = max(font.getlength(label[:80]) for label in labels)
    return math.ceil(min(longest, 1.5 * width)) + 3 * GAP if longest else GAP


def _line(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, font: Any, room: tuple[int, str]) -> None:
    width, color = room
    draw.text(corner, truncate_lines(text[:200].replace("\n", " "), font, width), fill=color, font=font)
