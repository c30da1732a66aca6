"""The nine styles. A style has a way to fill shapes and a way to finish the image.

Textures do not move: a brush stroke or a stitch has the same position in every image, so that a small model can learn
it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageFilter

from .pen import Fill

PLAIN = Fill()


@dataclass(frozen=True)
class Style:
    """`phrases` are how captions name the style, with {} for the rest."""

    phrases: tuple[str, ...]
    finish: Callable[[np.ndarray], np.ndarray]
    fill: Fill = PLAIN
    has_background: bool = True
    has_color: bool = True


@cache
def _noise(side: int, cells: int, seed: int) -> np.ndarray:
    """Return smooth noise (side, side) in [-1, 1] with `cells` bumps across. It depends on the seed only."""
    values = np.random.default_rng(seed).uniform(-1, 1, (cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(values, mode="F").resize((side, side), Image.Resampling.BICUBIC))


def _flat(p: np.ndarray) -> np.ndarray:
    return p


def _oil(p: np.ndarray) -> np.ndarray:
    side = p.shape[0]
    u = side // 64
    y, x = np.mgrid[0:side, 0:side]
    dy, dx = (1.3 * u * _noise(side, 20, s) for s in (1, 2))
    y, x = (np.clip(v, 0, side - 1).astype(int) for v in (y + dy, x + dx))
    moved = Image.fromarray(p[y, x]).filter(ImageFilter.MedianFilter(2 * u + 1))
    strokes = np.sin(
        (np.mgrid[0:side, 0:side][1] + np.mgrid[0:side, 0:side][0]) * (np.pi / (3 * u)) + 3 * _noise(side, 8, 3)
    )
    painted = np.asarray(moved, np.float32) * (0.95 + 0.09 * strokes[..., None])
    gray = painted.mean(-1, keepdims=True)
    return np.clip(gray + (painted - gray) * 1.25 - 6, 0, 255).astype(np.uint8)


def _watercolor(p: np.ndarray) -> np.ndarray:
    side = p.shape[0]
    soft = np.asarray(Image.fromarray(p).filter(ImageFilter.GaussianBlur(side / 160)), np.float32)
    washed = 255 - (255 - soft) * (0.74 + 0.14 * _noise(side, 9, 4)[..., None])
    y, x = np.abs(np.mgrid[0:side, 0:side] / side - 0.5)
    border = np.clip((0.47 + 0.03 * _noise(side, 14, 5) - np.maximum(x, y)) * 22, 0, 1)[..., None]
    return (washed * border + np.float32((252, 250, 244)) * (1 - border)).astype(np.uint8)


def _pencil(p: np.ndarray) -> np.ndarray:
    side = p.shape[0]
    gray = p.astype(np.float32).mean(-1)
    y, x = np.mgrid[0:side, 0:side]
    hatch = ((x + y) % (side // 32) < side // 64) & (gray < 90)
    gray = np.where(hatch, gray + 70, gray)
    return np.repeat(np.clip(gray, 40, 250)[..., None], 3, -1).astype(np.uint8)


def _pixels(p: np.ndarray) -> np.ndarray:
    side = p.shape[0]
    small = Image.fromarray(p).resize((32, 32), Image.Resampling.BOX)
    coarse = Image.fromarray((np.asarray(small) // 24 * 24 + 10).clip(0, 255).astype(np.uint8))
    return np.asarray(coarse.resize((side, side), Image.Resampling.NEAREST))


def _crochet(p: np.ndarray) -> np.ndarray:
    side = p.shape[0]
    stitch = side // 16
    soft = Image.fromarray(p).resize((32, 32), Image.Resampling.BOX).resize((side, side), Image.Resampling.NEAREST)
    y, x = np.mgrid[0:side, 0:side]
    slant = np.abs((x % stitch) - stitch / 2) / stitch
    ridge = 0.5 + 0.5 * np.cos(2 * np.pi * (y / (stitch / 2) - 1.6 * slant))
    gap = 0.5 + 0.5 * np.cos(2 * np.pi * x / (stitch / 2))
    yarn = 0.66 + 0.34 * ridge - 0.16 * gap
    return np.clip(np.asarray(soft, np.float32) * yarn[..., None] + 12, 0, 255).astype(np.uint8)


def _stencil(p: np.ndarray) -> np.ndarray:
    side = p.shape[0]
    spray = 1 + 0.06 * _noise(side, 30, 6)[..., None]
    return np.clip(p * spray, 0, 255).astype(np.uint8)


@cache
def _panes(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return brightness and lead of a fixed Voronoi window with 24 panes."""
    rng = np.random.default_rng(7)
    centers = rng.uniform(0, 1, (24, 2))
    y, x = np.mgrid[0:side, 0:side] / side
    far = np.sqrt((y[..., None] - centers[:, 0]) ** 2 + (x[..., None] - centers[:, 1]) ** 2)
    order = np.sort(far, -1)
    lead = (order[..., 1] - order[..., 0]) < 0.012
    return rng.uniform(0.78, 1.18, 24)[far.argmin(-1)].astype(np.float32), lead


def _glass(p: np.ndarray) -> np.ndarray:
    light, lead = _panes(p.shape[0])
    vivid = p.astype(np.float32)
    gray = vivid.mean(-1, keepdims=True)
    vivid = np.clip((gray + (vivid - gray) * 1.35) * light[..., None], 0, 255)
    return np.where(lead[..., None], np.float32(30), vivid).astype(np.uint8)


STYLES: dict[str, Style] = {
    "flat": Style(("{}", "{}", "a picture of {}", "a photo of {}", "an illustration of {}"), _flat),
    "oil": Style(("an oil painting of {}", "a painting of {}", "{}, oil painting"), _oil),
    "watercolor": Style(("a watercolor of {}", "{}, watercolor"), _watercolor),
    "pencil": Style(
        ("a pencil sketch of {}", "a drawing of {}", "{}, pencil sketch"), _pencil, Fill("line", 3), has_color=False
    ),
    "pixel": Style(("pixel art of {}", "{}, pixel art"), _pixels),
    "icon": Style(("an app icon of {}", "app icon of {}", "{}, app icon"), _flat, has_background=False),
    "crochet": Style(("crochet {}", "a crochet of {}", "{}, crochet"), _crochet),
    "stencil": Style(
        ("stencil graffiti of {} on a wall", "graffiti of {}"), _stencil, Fill("stencil"), has_background=False
    ),
    "glass": Style(("stained glass of {}", "{}, stained glass"), _glass, Fill("glass", 4)),
}
