"""Draw shapes in the coordinates of a thing, in the colors of the world.

A thing is drawn in a square from (-1, -1) at the top left to (1, 1) at the bottom right. The pen converts these
coordinates to the canvas and fills shapes as the style of the image says.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import ImageDraw

RGB = tuple[int, int, int]

COLORS: dict[str, RGB] = {
    "red": (222, 45, 48),
    "orange": (243, 138, 36),
    "yellow": (248, 210, 50),
    "green": (52, 160, 72),
    "turquoise": (52, 196, 190),
    "blue": (44, 96, 214),
    "purple": (132, 66, 180),
    "pink": (240, 130, 176),
    "brown": (134, 86, 48),
    "black": (44, 44, 50),
    "gray": (142, 146, 154),
    "white": (244, 244, 240),
}
INK: RGB = (28, 26, 32)
PAPER: RGB = (250, 249, 245)


def mix(a: RGB, b: RGB, amount: float) -> RGB:
    """Return the color that is `amount` of the way from `a` to `b`."""
    return tuple(round(x + (y - x) * amount) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def star_corners(points: int, inner: float) -> list[tuple[float, float]]:
    """Return the corners of a star of radius 1 with one point up. The inner corners have radius `inner`."""
    corners = []
    for i in range(points * 2):
        angle, r = math.radians(i * 180 / points - 90), 1.0 if i % 2 == 0 else inner
        corners.append((r * math.cos(angle), r * math.sin(angle)))
    return corners


@dataclass(frozen=True)
class Fill:
    """How a style fills shapes.

    `color`: with their color. `line`: as outlines on paper. `glass`: with a lead outline. `stencil`: with one color and
    ink.
    """

    kind: str = "color"
    outline: int = 0


class Pen:
    """Draw one thing of a `color` at (`x`, `y`), with a radius of `radius` pixels."""

    def __init__(self, draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, color: RGB, fill: Fill):
        self.draw, self.x, self.y, self.radius, self.fill = draw, x, y, radius, fill
        pale = sum(color) > 700
        self.tones: dict[str, RGB] = {
            "body": color,
            "dark": mix(color, (150, 150, 170) if pale else (0, 0, 0), 0.5 if pale else 0.38),
            "light": mix(color, (255, 255, 255), 0.5),
            "ink": INK if sum(color) > 180 else (230, 230, 235),
            "white": (255, 255, 255),
            "wood": (120, 78, 44),
            "leaf": (58, 142, 62),
            "gold": (247, 202, 70),
            "steel": (176, 184, 194),
            "glass": (190, 224, 244),
            "tire": (38, 38, 42),
        }

    def _style(self, tone: str) -> tuple[RGB, RGB | None, int]:
        color = self.tones[tone]
        if self.fill.kind == "line":
            solid = tone in ("ink", "tire")
            return (INK if solid else PAPER), (70, 70, 76), self.fill.outline
        if self.fill.kind == "glass":
            return color, INK, self.fill.outline
        if self.fill.kind == "stencil":
            open_tones = ("ink", "tire", "dark", "wood", "leaf")
            return (INK if tone in open_tones else self.tones["body"]), None, 0
        return color, None, 0

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return self.x + x * self.radius, self.y + y * self.radius

    def ellipse(self, x: float, y: float, rx: float, ry: float, tone: str = "body") -> None:
        color, outline, width = self._style(tone)
        box = [*self._at(x - rx, y - ry), *self._at(x + rx, y + ry)]
        self.draw.ellipse(box, fill=color, outline=outline, width=width)

    def box(self, x0: float, y0: float, x1: float, y1: float, tone: str = "body", round: float = 0.0) -> None:
        color, outline, width = self._style(tone)
        box = [*self._at(x0, y0), *self._at(x1, y1)]
        self.draw.rounded_rectangle(box, round * self.radius, fill=color, outline=outline, width=width)

    def shape(self, points: Sequence[tuple[float, float]], tone: str = "body") -> None:
        color, outline, width = self._style(tone)
        corners = [self._at(*p) for p in points]
        self.draw.polygon(corners, fill=color)
        if outline is not None:
            self.draw.line([*corners, corners[0], corners[1]], fill=outline, width=width, joint="curve")

    def half(self, x: float, y: float, rx: float, ry: float, start: int, end: int, tone: str = "body") -> None:
        """Draw a slice of an ellipse from `start` to `end` degrees, clockwise from the right."""
        color, outline, width = self._style(tone)
        box = [*self._at(x - rx, y - ry), *self._at(x + rx, y + ry)]
        self.draw.pieslice(box, start, end, fill=color, outline=outline, width=max(width, 1))

    def eyes(self, y: float, gap: float = 0.2, size: float = 0.075) -> None:
        """Draw two eyes at height `y`."""
        self.ellipse(-gap, y, size, size * 1.2, "ink")
        self.ellipse(gap, y, size, size * 1.2, "ink")

    def line(self, points: Sequence[tuple[float, float]], width: float, tone: str = "ink") -> None:
        color, outline, _ = self._style(tone)
        color = outline if outline is not None and self.fill.kind == "line" else color
        pixels = max(round(width * self.radius), 2)
        self.draw.line([self._at(*p) for p in points], fill=color, width=pixels, joint="curve")

    def ring(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        width: float,
        tone: str = "body",
        span: tuple[int, int] = (0, 360),
    ) -> None:
        color, outline, _ = self._style(tone)
        color = outline if outline is not None and self.fill.kind == "line" else color
        box = [*self._at(x - rx, y - ry), *self._at(x + rx, y + ry)]
        self.draw.arc(box, *span, fill=color, width=max(round(width * self.radius), 2))
