"""Numbers as colors, and pictures with labels in rows: what all exhibits are drawn with.

Knows pixels and tensors, no models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

GAP = 6
PAPER, INK, SOFT = "#fcfcfa", "#1d2126", "#5c6570"


@dataclass(frozen=True)
class SheetCell:
    """A picture with a line or two below it; without a picture, words in its place."""

    image: Image.Image | None
    caption: str = ""


def apply_colormap(values: torch.Tensor, colors: str = "magma", *, most: float = 1.0) -> Image.Image:
    """A map (h, w), 0 to `most`, in the colors of a matplotlib colormap."""
    scaled = (values.float() / (most or 1.0)).clamp(0, 1)
    return Image.fromarray((_colormap(colors)(scaled.cpu().numpy())[..., :3] * 255).astype("uint8"))


def signed_map(values: torch.Tensor, *, most: float = 3.0) -> Image.Image:
    """A map (h, w) around zero: blue below, white at zero, red above, strongest at ±`most`."""
    return apply_colormap(values.float() + most, "RdBu_r", most=2 * most)


def channel_grid(latents: torch.Tensor, side: int, *, most: float = 3.0) -> Image.Image:
    """The channels (C, h, w) of latents as signed maps in a square of `side` pixels, as many in a row as fill it."""
    columns = math.ceil(len(latents) ** 0.5)
    edge = side // columns
    top = (side - edge * math.ceil(len(latents) / columns)) // 2
    sheet = Image.new("RGB", (side, side), PAPER)
    for i, channel in enumerate(latents):
        tile = signed_map(channel, most=most).resize((edge - 1, edge - 1), Image.Resampling.NEAREST)
        sheet.paste(tile, (i % columns * edge, top + i // columns * edge))
    return sheet


def overlay_map(
    picture: Image.Image, heat: torch.Tensor, *, strength: float = 0.75, most: float | None = None
) -> Image.Image:
    """A picture grown dark where a map (h, w) is low, and colored where it is high.

    `most` is the value shown brightest; the map's own maximum without it.
    """
    top = float(heat.max()) if most is None else most
    size = picture.size
    hot = apply_colormap(heat, most=top).resize(size, Image.Resampling.BICUBIC)
    return Image.blend(picture.convert("L").convert("RGB"), hot, strength * 0.8)


def render_sheet(
    rows: Sequence[Sequence[SheetCell]], *, side: int, title: str = "", labels: Sequence[str] = ()
) -> Image.Image:
    """Rows of cells on paper: pictures `side` pixels wide, captions below, a label before each row."""
    letter = max(10, min(side // 12, 15))
    font = load_font(letter)
    line = round(letter * 1.35)
    margin = (max(_width(part, font) for x in labels for part in x.split("\n")) + 3 * GAP) if labels else GAP
    below = [line * max((c.caption.count("\n") + 1 for c in row if c.caption), default=0) for row in rows]
    tall = [max((_fitted(c.image, side).height for c in row if c.image), default=side) for row in rows]
    top = GAP + (line + 2 * GAP if title else 0)
    across = margin + max(len(row) for row in rows) * (side + GAP)
    width = max(across, _width(title, font) + 2 * GAP)
    height = top + sum(t + b + 2 * GAP for t, b in zip(tall, below, strict=True))
    paper = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(paper)
    draw.text((GAP, GAP), title, fill=INK, font=font)
    for i, row in enumerate(rows):
        if labels:
            draw.multiline_text((GAP, top + tall[i] // 2), labels[i], fill=INK, font=font, anchor="lm")
        for j, cell in enumerate(row):
            left = margin + j * (side + GAP)
            if cell.image is not None:
                paper.paste(_fitted(cell.image, side), (left, top))
            draw.multiline_text(
                (left, top + tall[i] + 2), truncate_lines(cell.caption, font, side), fill=SOFT, font=font
            )
        top += tall[i] + below[i] + 2 * GAP
    return paper


@lru_cache
def load_font(size: int) -> Any:
    """DejaVu Sans, which has Greek letters and comes with matplotlib."""
    import matplotlib

    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(file), size)


def truncate_lines(text: str, font: Any, width: int) -> str:
    """Every line of a text cut to `width` pixels, with an ellipsis where it was."""
    lines = []
    for words in text.split("\n"):
        while len(words) > 1 and font.getlength(words) > width:
            words = words.removesuffix("…")[:-1] + "…"
        lines.append(words)
    return "\n".join(lines)


def _width(text: str, font: Any) -> int:
    return int(font.getlength(text)) + 1 if text else 0


def _fitted(picture: Image.Image, side: int) -> Image.Image:
    """A picture `side` pixels wide, its proportions kept; small ones grow without blur."""
    if picture.width == side:
        return picture
    way = Image.Resampling.NEAREST if picture.width < side else Image.Resampling.LANCZOS
    return picture.resize((side, max(round(picture.height * side / picture.width), 1)), way)


@lru_cache
def _colormap(name: str) -> Any:
    import matplotlib

    return matplotlib.colormaps[name]
