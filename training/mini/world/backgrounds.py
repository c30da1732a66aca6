"""Paint the twelve backgrounds, and galaxies, which fill the whole image.

A background looks nearly the same each time. What varies without being in the caption is learned as blur, so only the
stars, the grass and a small shift sideways are random.
"""

import math
from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .pen import RGB, mix

# How a caption names each background. The first phrase is the usual one.
BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "grass": ("on the grass", "in a meadow"),
    "square": ("on a town square", "on the square"),
    "forest": ("in a forest", "in the woods"),
    "beach": ("on the beach", "by the sea"),
    "night": ("under a night sky", "at night"),
    "snow": ("in the snow", "in winter"),
    "room": ("in a room", "indoors"),
    "street": ("on a street", "in the city"),
    "mountain": ("in the mountains", "in front of a mountain"),
    "desert": ("in the desert", "on the sand dunes"),
    "space": ("in space", "among the stars"),
    "plain": ("on a plain background", "on white"),
}


class Canvas:
    """An image to paint on, with coordinates in fractions of its side."""

    def __init__(self, side: int, rng: Random):
        self.side, self.rng = side, rng
        self.image = Image.new("RGB", (side, side))
        self.draw = ImageDraw.Draw(self.image)
        self.shift = rng.uniform(-0.04, 0.04)

    def sky(self, top: RGB, bottom: RGB, y0: float = 0.0, y1: float = 1.0) -> None:
        column = Image.new("RGB", (1, 16))
        for i in range(16):
            column.putpixel((0, i), mix(top, bottom, i / 15))
        a, b = round(y0 * self.side), round(y1 * self.side)
        self.image.paste(column.resize((self.side, b - a), Image.Resampling.BILINEAR), (0, a))

    def box(self, x0: float, y0: float, x1: float, y1: float, color: RGB) -> None:
        s, d = self.side, self.shift
        self.draw.rectangle([(x0 + d) * s, y0 * s, (x1 + d) * s, y1 * s], fill=color)

    def polygon(self, points: list[tuple[float, float]], color: RGB) -> None:
        self.draw.polygon([((x + self.shift) * self.side, y * self.side) for x, y in points], fill=color)

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: RGB) -> None:
        s, x = self.side, x + self.shift
        self.draw.ellipse([(x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s], fill=color)

    def stars(self, count: int, y1: float = 1.0) -> None:
        for _ in range(count):
            x, y, r = (
                self.rng.random(),
                self.rng.random() * y1,
                self.rng.choice((0.004, 0.006, 0.009)),
            )
            self.draw.ellipse(
                [
                    (x - r) * self.side,
                    (y - r) * self.side,
                    (x + r) * self.side,
                    (y + r) * self.side,
                ],
                fill=(235, 235, 255),
            )


def _grass(c: Canvas) -> None:
    c.sky((120, 190, 250), (205, 232, 252), 0, 0.58)
    c.sky((110, 186, 84), (72, 152, 62), 0.58, 1)
    for _ in range(40):
        x, y = c.rng.random() * c.side, c.rng.uniform(0.62, 0.98) * c.side
        c.draw.line([x, y, x + 2, y - 0.03 * c.side], fill=(58, 132, 54), width=2)


def _square(c: Canvas) -> None:
    c.sky((150, 205, 246), (220, 236, 250), 0, 0.6)
    walls = ((232, 196, 150), (214, 150, 124), (240, 220, 176), (196, 166, 150), (226, 184, 140))
    for i, wall in enumerate(walls):
        x = -0.05 + i * 0.22
        c.box(x, 0.26 + 0.05 * (i % 2), x + 0.22, 0.62, wall)
        c.polygon(
            [
                (x, 0.26 + 0.05 * (i % 2)),
                (x + 0.11, 0.15 + 0.05 * (i % 2)),
                (x + 0.22, 0.26 + 0.05 * (i % 2)),
            ],
            (164, 84, 66),
        )
        for wx in (0.04, 0.13):
            c.box(x + wx, 0.38, x + wx + 0.05, 0.48, (112, 128, 150))
    c.sky((206, 196, 184), (178, 168, 158), 0.62, 1)
    for i in range(1, 6):
        y = 0.62 + 0.38 * (i / 6) ** 1.4
        c.draw.line([0, y * c.side, c.side, y * c.side], fill=(158, 148, 138), width=2)


def _forest(c: Canvas) -> None:
    c.sky((150, 198, 160), (196, 222, 176), 0, 0.7)
    for i in range(6):
        x = 0.02 + i * 0.19
        c.polygon(
            [(x - 0.14, 0.66), (x, 0.06 + 0.06 * (i % 2)), (x + 0.14, 0.66)],
            (44 + 16 * (i % 2), 108 + 14 * (i % 2), 70),
        )
        c.box(x - 0.015, 0.6, x + 0.015, 0.7, (98, 70, 44))
    c.sky((104, 122, 62), (78, 94, 48), 0.68, 1)


def _beach(c: Canvas) -> None:
    c.sky((112, 188, 246), (196, 230, 250), 0, 0.45)
    c.sky((30, 112, 184), (70, 164, 206), 0.45, 0.64)
    c.sky((240, 220, 168), (226, 198, 140), 0.64, 1)
    c.box(-0.1, 0.635, 1.1, 0.655, (246, 248, 246))


def _night(c: Canvas) -> None:
    c.sky((10, 14, 46), (44, 50, 104), 0, 0.72)
    c.stars(45, 0.68)
    c.sky((22, 38, 46), (14, 24, 32), 0.72, 1)


def _snow(c: Canvas) -> None:
    c.sky((168, 196, 224), (222, 234, 244), 0, 0.6)
    for x in (0.1, 0.88):
        c.polygon([(x - 0.13, 0.62), (x, 0.2), (x + 0.13, 0.62)], (96, 140, 128))
        c.polygon([(x - 0.06, 0.36), (x, 0.2), (x + 0.06, 0.36)], (246, 250, 252))
    c.sky((238, 244, 250), (216, 228, 242), 0.6, 1)
    for _ in range(26):
        x, y = c.rng.random(), c.rng.random() * 0.62
        c.ellipse(x, y, 0.009, 0.009, (255, 255, 255))


def _room(c: Canvas) -> None:
    c.sky((238, 220, 190), (228, 206, 172), 0, 0.7)
    c.box(0.08, 0.12, 0.34, 0.44, (250, 250, 246))
    c.box(0.1, 0.14, 0.32, 0.42, (164, 210, 240))
    c.box(0.2, 0.14, 0.22, 0.42, (250, 250, 246))
    c.box(0.68, 0.16, 0.9, 0.36, (150, 104, 66))
    c.box(0.7, 0.18, 0.88, 0.34, (206, 226, 204))
    c.sky((176, 122, 78), (146, 98, 60), 0.72, 1)
    c.box(-0.1, 0.69, 1.1, 0.73, (246, 240, 228))


def _street(c: Canvas) -> None:
    c.sky((250, 200, 158), (252, 226, 196), 0, 0.62)
    heights = (0.3, 0.12, 0.24, 0.06, 0.2, 0.34)
    for i, top in enumerate(heights):
        gray = 112 + 22 * (i % 2)
        c.box(-0.06 + i * 0.19, top, 0.12 + i * 0.19, 0.66, (gray, gray, gray + 14))
        for row in range(3):
            for x in (0.03, 0.1):
                c.box(
                    -0.06 + i * 0.19 + x,
                    top + 0.05 + row * 0.1,
                    -0.02 + i * 0.19 + x,
                    top + 0.09 + row * 0.1,
                    (250, 226, 150),
                )
    c.sky((104, 104, 112), (84, 84, 92), 0.66, 1)
    for x in (0.0, 0.3, 0.6, 0.9):
        c.box(x, 0.83, x + 0.16, 0.86, (236, 232, 220))


def _mountain(c: Canvas) -> None:
    c.sky((128, 186, 240), (214, 232, 248), 0, 0.7)
    for x, top, half in ((0.2, 0.24, 0.36), (0.78, 0.16, 0.4)):
        c.polygon([(x - half, 0.72), (x, top), (x + half, 0.72)], (116, 124, 150))
        c.polygon(
            [(x - half * 0.3, top + 0.15), (x, top), (x + half * 0.3, top + 0.15), (x, top + 0.11)],
            (246, 248, 252),
        )
    c.sky((132, 172, 96), (104, 146, 78), 0.7, 1)


def _desert(c: Canvas) -> None:
    c.sky((250, 190, 110), (252, 226, 164), 0, 0.6)
    c.ellipse(0.25, 0.66, 0.5, 0.16, (222, 160, 92))
    c.sky((236, 180, 106), (214, 150, 84), 0.64, 1)
    c.ellipse(0.85, 0.72, 0.5, 0.12, (240, 190, 120))


def _space(c: Canvas) -> None:
    c.sky((8, 6, 22), (16, 10, 36))
    c.stars(60)


def _plain(c: Canvas) -> None:
    c.sky((240, 240, 238), (232, 232, 230))


PAINTERS: dict[str, Callable[[Canvas], None]] = {
    "grass": _grass,
    "square": _square,
    "forest": _forest,
    "beach": _beach,
    "night": _night,
    "snow": _snow,
    "room": _room,
    "street": _street,
    "mountain": _mountain,
    "desert": _desert,
    "space": _space,
    "plain": _plain,
}


def paint_wall(c: Canvas) -> None:
    """Paint the brick wall behind graffiti."""
    c.sky((196, 120, 96), (178, 104, 82))
    for row in range(10):
        y = row * 0.1
        c.draw.line([0, y * c.side, c.side, y * c.side], fill=(214, 190, 172), width=c.side // 80)
        for i in range(6):
            x = (i * 0.2 + 0.1 * (row % 2)) * c.side
            c.draw.line([x, y * c.side, x, (y + 0.1) * c.side], fill=(214, 190, 172), width=c.side // 80)


def paint_icon(c: Canvas) -> None:
    """Paint the rounded tile of an app icon."""
    c.draw.rectangle([0, 0, c.side, c.side], fill=(250, 250, 250))
    tile = Image.new("RGB", (1, 8))
    for i in range(8):
        tile.putpixel((0, i), mix((206, 232, 255), (140, 186, 240), i / 7))
    mask = Image.new("L", (c.side, c.side))
    ImageDraw.Draw(mask).rounded_rectangle(
        [0.06 * c.side, 0.06 * c.side, 0.94 * c.side, 0.94 * c.side], 0.2 * c.side, fill=255
    )
    c.image.paste(tile.resize((c.side, c.side), Image.Resampling.BILINEAR), (0, 0), mask)


# Colors of (arms, dust and halo) of a galaxy, by the color in its caption. None: the caption names no color.
_GALAXIES: dict[str | None, tuple[RGB, RGB]] = {
    None: ((130, 140, 255), (255, 70, 170)),
    "blue": ((90, 150, 255), (70, 90, 220)),
    "pink": ((255, 140, 200), (200, 70, 150)),
    "purple": ((180, 120, 255), (110, 50, 190)),
    "orange": ((255, 180, 100), (210, 100, 40)),
    "green": ((130, 240, 160), (40, 150, 110)),
    "red": ((255, 110, 100), (180, 40, 50)),
    "turquoise": ((110, 235, 230), (30, 140, 160)),
    "white": ((235, 238, 255), (150, 156, 190)),
}
GALAXY_COLORS = tuple(name for name in _GALAXIES if name)


def paint_galaxy(c: Canvas, color: str | None, size: float) -> None:
    """Paint a spiral of two arms, `size` of the canvas wide, with dust, knots and a warm core.

    The light is a sum of smooth functions of the distance to the core and to the nearest arm (a logarithmic spiral).
    The galaxy is tilted, in front of a sky of stars.
    """
    side, rng = c.side // 2, c.rng
    turn, tilt, lean = rng.uniform(0, math.pi), rng.uniform(0.5, 0.75), rng.uniform(-0.5, 0.5)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side - 0.5
    x, y = x * math.cos(lean) + y * math.sin(lean), (y * math.cos(lean) - x * math.sin(lean)) / tilt
    r = np.sqrt(x * x + y * y) / (0.5 * size) + 1e-4
    winding = 2 * (np.arctan2(y, x) - turn - 2.6 * np.log(r + 0.12))
    arms = np.exp(-1.9 * r) * (0.5 + 0.5 * np.cos(winding)) ** 2.2
    knots = np.exp(-1.9 * r) * (0.5 + 0.5 * np.cos(winding - 0.7)) ** 12
    halo, core = np.exp(-2.6 * r), np.exp(-26 * r * r)
    edge = np.clip(1.25 - r, 0, 1) ** 0.7
    arm, dust = (np.array(v, np.float32) for v in _GALAXIES[color])
    light = (1.9 * arms * edge)[..., None] * arm + (1.1 * knots * edge)[..., None] * np.float32((255, 235, 245))
    light += (0.8 * halo * edge)[..., None] * dust + core[..., None] * np.float32((255, 226, 160)) * 1.15
    _space(c)
    glow = Image.fromarray(np.clip(light, 0, 255).astype(np.uint8)).resize((c.side, c.side), Image.Resampling.BILINEAR)
    sky = np.asarray(c.image, np.float32)
    lit = 255 - (255 - sky) * (255 - np.asarray(glow, np.float32)) / 255
    c.image.paste(Image.fromarray(lit.astype(np.uint8)))


def find_edges(image: Image.Image) -> Image.Image:
    """Return the outlines of a painted background as a pencil would draw them: black on white, mode L."""
    lines = image.convert("L").filter(ImageFilter.FIND_EDGES).point(lambda v: 255 - min(255, v * 3))
    lines.paste(255, (0, 0, lines.width, 2))
    lines.paste(255, (0, lines.height - 2, lines.width, lines.height))
    lines.paste(255, (0, 0, 2, lines.height))
    lines.paste(255, (lines.width - 2, 0, lines.width, lines.height))
    return lines
