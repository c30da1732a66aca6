"""Draw tensors as colors, and lay images out in rows with captions and labels."""

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
    """An image with a caption of one or more lines below it. Without an image, the cell stays empty."""

    image: Image.Image | None
    caption: str = ""


def apply_colormap(values: torch.Tensor, name: str = "magma", *, vmax: float = 1.0) -> Image.Image:
    """Color a map (h, w) of values from 0 to `vmax` with a matplotlib colormap."""
    scaled = (values.float() / (vmax or 1.0)).clamp(0, 1)
    return Image.fromarray((_colormap(name)(scaled.cpu().numpy())[..., :3] * 255).astype("uint8"))


def signed_map(values: torch.Tensor, *, vmax: float = 3.0) -> Image.Image:
    """Color a map (h, w) around zero: blue is negative, white zero, red positive, full color at ±`vmax`."""
    return apply_colormap(values.float() + vmax, "RdBu_r", vmax=2 * vmax)


def channel_grid(latents: torch.Tensor, side: int, *, vmax: float = 3.0) -> Image.Image:
    """Draw the channels (C, h, w) of latents as signed maps in a square of `side` pixels."""
    columns = math.ceil(len(latents) ** 0.5)
    edge = side // columns
    top = (side - edge * math.ceil(len(latents) / columns)) // 2
    grid = Image.new("RGB", (side, side), PAPER)
    for i, channel in enumerate(latents):
        tile = signed_map(channel, vmax=vmax).resize((edge - 1, edge - 1), Image.Resampling.NEAREST)
        grid.paste(tile, (i % columns * edge, top + i // columns * edge))
    return grid


def overlay_map(
    image: Image.Image, values: torch.Tensor, *, strength: float = 0.75, vmax: float | None = None
) -> Image.Image:
    """Lay a map (h, w) over a gray copy of an image: dark where it is low, colored where it is high.

    `vmax` is the value that is shown brightest. By default it is the map's own maximum.
    """
    colored = apply_colormap(values, vmax=float(values.max()) if vmax is None else vmax)
    colored = colored.resize(image.size, Image.Resampling.BICUBIC)
    return Image.blend(image.convert("L").convert("RGB"), colored, strength * 0.8)


def render_sheet(
    rows: Sequence[Sequence[SheetCell]], *, side: int, title: str = "", labels: Sequence[str] = ()
) -> Image.Image:
    """Lay out rows of cells: images `side` pixels wide, captions below them, a label before each row."""
    font_size = max(10, min(side // 12, 15))
    font = load_font(font_size)
    line = round(font_size * 1.35)
    margin = (max(_text_width(part, font) for x in labels for part in x.split("\n")) + 3 * GAP) if labels else GAP
    below = [line * max((c.caption.count("\n") + 1 for c in row if c.caption), default=0) for row in rows]
    tall = [max((_resized(c.image, side).height for c in row if c.image), default=side) for row in rows]
    top = GAP + (line + 2 * GAP if title else 0)
    across = margin + max(len(row) for row in rows) * (side + GAP)
    width = max(across, _text_width(title, font) + 2 * GAP)
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
                paper.paste(_resized(cell.image, side), (left, top))
            draw.multiline_text(
                (left, top + tall[i] + 2), truncate_lines(cell.caption, font, side), fill=SOFT, font=font
            )
        top += tall[i] + below[i] + 2 * GAP
    return paper


@lru_cache
def load_font(size: int) -> Any:
    """Load DejaVu Sans, which has Greek letters and comes with matplotlib."""
    import matplotlib

    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(file), size)


def truncate_lines(text: str, font: Any, width: int) -> str:
    """Cut every line of a text to `width` pixels, with an ellipsis where something is missing."""
    lines = []
    for words in text.split("\n"):
        while len(words) > 1 and font.getlength(words) > width:
            words = words.removesuffix("…")[:-1] + "…"
        lines.append(words)
    return "\n".join(lines)


def _text_width(text: str, font: Any) -> int:
    return int(font.getlength(text)) + 1 if text else 0


def _resized(image: Image.Image, side: int) -> Image.Image:
    """Resize to `side` pixels in width and keep the proportions. Small images are enlarged without blur."""
    if image.width == side:
        return image
    resampling = Image.Resampling.NEAREST if image.width < side else Image.Resampling.LANCZOS
    return image.resize((side, max(round(image.height * side / image.width), 1)), resampling)


@lru_cache
def _colormap(name: str) -> Any:
    import matplotlib

    return matplotlib.colormaps[name]
