"""What can be drawn: every subject is a few ellipses and polygons in the square from -1 to 1."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from .pen import Pen


@dataclass(frozen=True)
class Subject:
    """A thing with the color and place it has when a caption does not say otherwise."""

    draw: Callable[[Pen], None]
    color: str
    home: str
    plural: str
    flies: bool = False
    holds: bool = False


SUBJECTS: dict[str, Subject] = {}


def subject(color: str, home: str, plural: str = "", flies: bool = False, holds: bool = False):
    """Register a drawing under its function's name."""

    def register(draw: Callable[[Pen], None]) -> Callable[[Pen], None]:
        name = draw.__name__
        SUBJECTS[name] = Subject(draw, color, home, plural or f"{name}s", flies, holds)
        return draw

    return register


def _face(p: Pen, y: float, gap: float = 0.2, eye: float = 0.075) -> None:
    p.ellipse(-gap, y, eye, eye * 1.2, "ink")
    p.ellipse(gap, y, eye, eye * 1.2, "ink")


def _star(points: int, inner: float, turn: float = -90) -> list[tuple[float, float]]:
    corners = []
    for i in range(points * 2):
        angle, r = math.radians(turn + i * 180 / points), 1.0 if i % 2 == 0 else inner
        corners.append((r * math.cos(angle), r * math.sin(angle)))
    return corners


# --- animals ---------------------------------------------------------------------------------


@subject("orange", "grass")
def cat(p: Pen) -> None:
    p.ring(0.5, 0.5, 0.4, 0.4, 0.14, "dark", (-70, 90))
    p.ellipse(0, 0.5, 0.5, 0.5)
    p.shape([(-0.58, -0.28), (-0.56, -1), (-0.08, -0.62)])
    p.shape([(0.58, -0.28), (0.56, -1), (0.08, -0.62)])
    p.ellipse(0, -0.28, 0.6, 0.5)
    p.ellipse(0, 0.6, 0.26, 0.36, "light")
    _face(p, -0.34, 0.25, 0.09)
    p.shape([(-0.09, -0.15), (0.09, -0.15), (0, -0.04)], "ink")


@subject("brown", "grass")
def dog(p: Pen) -> None:
    p.ellipse(0, 0.52, 0.48, 0.48)
    p.ellipse(0, -0.32, 0.56, 0.55)
    p.ellipse(-0.6, -0.22, 0.2, 0.52, "dark")
    p.ellipse(0.6, -0.22, 0.2, 0.52, "dark")
    p.ellipse(0, -0.08, 0.28, 0.24, "light")
    _face(p, -0.42, 0.22, 0.08)
    p.ellipse(0, -0.16, 0.13, 0.1, "ink")
    p.ellipse(-0.25, 0.9, 0.2, 0.1, "light")
    p.ellipse(0.25, 0.9, 0.2, 0.1, "light")


@subject("white", "grass")
def rabbit(p: Pen) -> None:
    p.ellipse(-0.22, -0.6, 0.15, 0.42)
    p.ellipse(0.22, -0.6, 0.15, 0.42)
    p.ellipse(-0.22, -0.56, 0.07, 0.28, "dark")
    p.ellipse(0.22, -0.56, 0.07, 0.28, "dark")
    p.ellipse(0, 0.58, 0.44, 0.42)
    p.ellipse(0, -0.02, 0.42, 0.36)
    _face(p, -0.06, 0.17, 0.07)
    p.ellipse(0, 0.1, 0.07, 0.05, "ink")
    p.ellipse(0.46, 0.74, 0.16, 0.16, "light")


@subject("blue", "grass", flies=True)
def bird(p: Pen) -> None:
    p.shape([(0.3, 0.1), (1, -0.25), (0.95, 0.3)], "dark")
    p.ellipse(0, 0.15, 0.6, 0.45)
    p.ellipse(-0.45, -0.3, 0.34, 0.34)
    p.shape([(-0.74, -0.38), (-1, -0.22), (-0.74, -0.12)], "gold")
    p.ellipse(0.12, 0.12, 0.34, 0.2, "dark")
    p.ellipse(-0.52, -0.36, 0.08, 0.09, "ink")
    p.line([(-0.1, 0.58), (-0.1, 0.9)], 0.07, "gold")
    p.line([(0.15, 0.56), (0.15, 0.9)], 0.07, "gold")


@subject("orange", "plain", plural="fish")
def fish(p: Pen) -> None:
    p.shape([(0.4, 0), (1, -0.5), (0.86, 0), (1, 0.5)], "dark")
    p.shape([(-0.1, -0.4), (0.3, -0.75), (0.4, -0.3)], "dark")
    p.ellipse(-0.2, 0, 0.74, 0.5)
    p.ring(-0.42, 0, 0.3, 0.4, 0.06, "dark", (-70, 70))
    p.ellipse(-0.58, -0.12, 0.13, 0.13, "white")
    p.ellipse(-0.6, -0.12, 0.07, 0.07, "ink")


@subject("brown", "forest")
def bear(p: Pen) -> None:
    p.ellipse(-0.42, -0.75, 0.22, 0.22, "dark")
    p.ellipse(0.42, -0.75, 0.22, 0.22, "dark")
    p.ellipse(-0.55, 0.45, 0.2, 0.36, "dark")
    p.ellipse(0.55, 0.45, 0.2, 0.36, "dark")
    p.ellipse(0, 0.48, 0.56, 0.52)
    p.ellipse(0, -0.4, 0.54, 0.48)
    p.ellipse(0, -0.24, 0.25, 0.2, "light")
    p.ellipse(0, 0.52, 0.32, 0.34, "light")
    _face(p, -0.5, 0.22, 0.07)
    p.ellipse(0, -0.32, 0.1, 0.07, "ink")


@subject("pink", "grass")
def pig(p: Pen) -> None:
    for x in (-0.5, -0.15, 0.2, 0.5):
        p.box(x - 0.1, 0.4, x + 0.1, 0.9, "dark")
    p.ellipse(0.1, 0.15, 0.75, 0.5)
    p.shape([(-0.7, -0.5), (-0.75, -0.9), (-0.4, -0.6)], "dark")
    p.ellipse(-0.5, -0.2, 0.42, 0.42)
    p.ellipse(-0.68, -0.1, 0.2, 0.15, "light")
    p.ellipse(-0.74, -0.1, 0.04, 0.06, "ink")
    p.ellipse(-0.62, -0.1, 0.04, 0.06, "ink")
    p.ellipse(-0.5, -0.36, 0.07, 0.08, "ink")
    p.ring(0.88, 0, 0.12, 0.12, 0.07, "dark")


@subject("green", "grass")
def frog(p: Pen) -> None:
    p.ellipse(-0.6, 0.6, 0.36, 0.28, "dark")
    p.ellipse(0.6, 0.6, 0.36, 0.28, "dark")
    p.ellipse(0, 0.3, 0.66, 0.56)
    for x in (-0.38, 0.38):
        p.ellipse(x, -0.32, 0.25, 0.25)
        p.ellipse(x, -0.36, 0.16, 0.16, "white")
        p.ellipse(x, -0.36, 0.08, 0.1, "ink")
    p.ellipse(0, 0.5, 0.4, 0.3, "light")
    p.ring(0, -0.05, 0.4, 0.26, 0.06, "ink", (20, 160))


@subject("gray", "room", plural="mice")
def mouse(p: Pen) -> None:
    p.ring(0.75, 0.3, 0.3, 0.4, 0.07, "dark", (-120, 90))
    p.ellipse(0.15, 0.35, 0.66, 0.45)
    p.ellipse(-0.5, -0.3, 0.3, 0.3, "dark")
    p.ellipse(-0.02, -0.34, 0.3, 0.3, "dark")
    p.ellipse(-0.02, -0.34, 0.18, 0.18, "light")
    p.shape([(-0.95, 0.42), (-0.4, -0.15), (0.1, 0.35), (-0.3, 0.6)])
    p.ellipse(-0.94, 0.42, 0.09, 0.09, "ink")
    p.ellipse(-0.45, 0.18, 0.07, 0.08, "ink")


@subject("yellow", "beach")
def duck(p: Pen) -> None:
    p.shape([(0.5, 0.3), (1, -0.1), (0.85, 0.6)])
    p.ellipse(0.1, 0.42, 0.76, 0.46)
    p.ellipse(-0.42, -0.35, 0.4, 0.4)
    p.box(-0.6, -0.3, -0.15, 0.3)
    p.shape([(-0.76, -0.42), (-1, -0.24), (-0.76, -0.14)], "dark")
    p.ellipse(0.2, 0.38, 0.4, 0.22, "dark")
    p.ellipse(-0.5, -0.44, 0.08, 0.09, "ink")


@subject("purple", "grass", plural="butterflies", flies=True)
def butterfly(p: Pen) -> None:
    for s in (-1, 1):
        p.ellipse(s * 0.5, -0.35, 0.44, 0.46)
        p.ellipse(s * 0.42, 0.45, 0.34, 0.38, "dark")
        p.ellipse(s * 0.55, -0.38, 0.18, 0.2, "light")
        p.line([(0, -0.6), (s * 0.25, -0.95)], 0.05, "ink")
    p.ellipse(0, 0.05, 0.09, 0.7, "ink")


@subject("black", "snow")
def penguin(p: Pen) -> None:
    p.ellipse(-0.3, 0.9, 0.26, 0.1, "gold")
    p.ellipse(0.3, 0.9, 0.26, 0.1, "gold")
    p.ellipse(-0.55, 0.25, 0.14, 0.46, "dark")
    p.ellipse(0.55, 0.25, 0.14, 0.46, "dark")
    p.ellipse(0, 0.2, 0.54, 0.7)
    p.ellipse(0, -0.55, 0.4, 0.4)
    p.ellipse(0, 0.32, 0.36, 0.52, "white")
    p.ellipse(-0.15, -0.6, 0.1, 0.11, "white")
    p.ellipse(0.15, -0.6, 0.1, 0.11, "white")
    _face(p, -0.6, 0.14, 0.05)
    p.shape([(-0.12, -0.46), (0.12, -0.46), (0, -0.26)], "gold")


@subject("gray", "forest", plural="elephants")
def elephant(p: Pen) -> None:
    for x in (-0.1, 0.25, 0.6):
        p.box(x - 0.12, 0.3, x + 0.12, 0.92, "dark")
    p.ellipse(0.28, 0.1, 0.66, 0.5)
    p.line([(-0.65, -0.1), (-0.85, 0.35), (-0.8, 0.8)], 0.2, "body")
    p.ellipse(-0.45, -0.22, 0.4, 0.4)
    p.ellipse(-0.2, -0.25, 0.3, 0.42, "dark")
    p.ellipse(-0.6, -0.3, 0.06, 0.07, "ink")


# --- vehicles --------------------------------------------------------------------------------


def _wheel(p: Pen, x: float, y: float, r: float = 0.22) -> None:
    p.ellipse(x, y, r, r, "tire")
    p.ellipse(x, y, r * 0.45, r * 0.45, "steel")


@subject("red", "street")
def car(p: Pen) -> None:
    p.shape([(-0.6, 0), (-0.36, -0.5), (0.34, -0.5), (0.62, 0)])
    p.shape([(-0.45, 0), (-0.28, -0.36), (-0.04, -0.36), (-0.04, 0)], "glass")
    p.shape([(0.04, 0), (0.04, -0.36), (0.27, -0.36), (0.47, 0)], "glass")
    p.box(-1, -0.05, 1, 0.42, "body", 0.14)
    p.ellipse(0.9, 0.14, 0.08, 0.1, "gold")
    _wheel(p, -0.55, 0.42, 0.25)
    _wheel(p, 0.55, 0.42, 0.25)


@subject("yellow", "street", plural="buses")
def bus(p: Pen) -> None:
    p.box(-1, -0.62, 1, 0.5, "body", 0.12)
    for x in (-0.82, -0.4, 0.02):
        p.box(x, -0.42, x + 0.32, 0, "glass")
    p.box(0.5, -0.42, 0.84, 0.5, "glass")
    p.box(-1, 0.14, 0.46, 0.24, "dark")
    _wheel(p, -0.55, 0.52, 0.24)
    _wheel(p, 0.3, 0.52, 0.24)


@subject("blue", "street")
def truck(p: Pen) -> None:
    p.box(-1, -0.6, 0.34, 0.42, "light")
    p.shape([(0.4, 0.42), (0.4, -0.36), (0.74, -0.36), (1, 0.05), (1, 0.42)])
    p.shape([(0.5, 0), (0.5, -0.24), (0.7, -0.24), (0.85, 0)], "glass")
    p.box(-1, 0.3, 1, 0.46, "dark")
    for x in (-0.7, -0.2, 0.7):
        _wheel(p, x, 0.5, 0.22)


@subject("red", "beach", holds=True)
def boat(p: Pen) -> None:
    p.line([(0, 0.3), (0, -0.98)], 0.07, "wood")
    p.shape([(0.07, -0.92), (0.07, 0.16), (0.78, 0.16)], "white")
    p.shape([(-0.07, -0.7), (-0.07, 0.16), (-0.6, 0.16)], "light")
    p.shape([(-1, 0.28), (1, 0.28), (0.66, 0.82), (-0.66, 0.82)])
    p.shape([(-0.93, 0.4), (0.93, 0.4), (0.86, 0.5), (-0.86, 0.5)], "dark")


@subject("green", "mountain")
def train(p: Pen) -> None:
    p.box(-0.95, -0.75, -0.25, 0.4)
    p.box(-0.8, -0.55, -0.4, -0.15, "glass")
    p.box(-0.25, -0.25, 0.8, 0.4, "body", 0.15)
    p.shape([(0.35, -0.25), (0.28, -0.75), (0.72, -0.75), (0.65, -0.25)], "dark")
    p.box(-1, 0.3, 0.95, 0.46, "dark")
    for x in (-0.7, -0.15, 0.2, 0.6):
        _wheel(p, x, 0.56, 0.2)


@subject("red", "space", flies=True)
def rocket(p: Pen) -> None:
    p.shape([(-0.2, 0.6), (0, 1), (0.2, 0.6)], "gold")
    p.shape([(-0.32, 0.1), (-0.66, 0.72), (-0.28, 0.6)], "dark")
    p.shape([(0.32, 0.1), (0.66, 0.72), (0.28, 0.6)], "dark")
    p.shape(
        [
            (0, -1),
            (0.22, -0.68),
            (0.34, -0.2),
            (0.32, 0.3),
            (0.22, 0.62),
            (-0.22, 0.62),
            (-0.32, 0.3),
            (-0.34, -0.2),
            (-0.22, -0.68),
        ]
    )
    p.ellipse(0, -0.22, 0.19, 0.19, "dark")
    p.ellipse(0, -0.22, 0.13, 0.13, "glass")


@subject("orange", "mountain", flies=True)
def balloon(p: Pen) -> None:
    p.line([(-0.4, 0.1), (-0.15, 0.72)], 0.04, "wood")
    p.line([(0.4, 0.1), (0.15, 0.72)], 0.04, "wood")
    p.shape([(-0.62, 0), (0.62, 0), (0.18, 0.46), (-0.18, 0.46)])
    p.ellipse(0, -0.3, 0.7, 0.68)
    p.ellipse(0, -0.3, 0.3, 0.68, "light")
    p.box(-0.2, 0.68, 0.2, 0.98, "wood", 0.05)


@subject("white", "mountain", flies=True)
def airplane(p: Pen) -> None:
    p.shape([(-0.85, -0.05), (-1, -0.6), (-0.72, -0.6), (-0.45, -0.05)], "dark")
    p.box(-0.95, -0.2, 0.95, 0.24, "body", 0.22)
    p.shape([(-0.2, 0.05), (-0.55, 0.75), (-0.25, 0.75), (0.35, 0.05)], "dark")
    for x in (-0.4, -0.15, 0.1, 0.35):
        p.ellipse(x, -0.04, 0.06, 0.07, "ink")
    p.shape([(0.62, -0.18), (0.86, -0.1), (0.9, 0), (0.62, 0)], "glass")


# --- plants and food -------------------------------------------------------------------------


@subject("green", "grass")
def tree(p: Pen) -> None:
    p.box(-0.14, 0.1, 0.14, 1, "wood")
    p.ellipse(-0.4, -0.12, 0.42, 0.38, "dark")
    p.ellipse(0.4, -0.12, 0.42, 0.38, "dark")
    p.ellipse(0, -0.45, 0.56, 0.52)


@subject("pink", "grass")
def flower(p: Pen) -> None:
    p.line([(0, 0), (0, 0.98)], 0.1, "leaf")
    p.ellipse(0.26, 0.66, 0.24, 0.1, "leaf")
    for i in range(6):
        a = math.radians(i * 60 + 30)
        p.ellipse(0.42 * math.cos(a), -0.35 + 0.42 * math.sin(a), 0.25, 0.25)
    p.ellipse(0, -0.35, 0.24, 0.24, "gold")


@subject("green", "desert", plural="cacti")
def cactus(p: Pen) -> None:
    p.line([(-0.66, -0.3), (-0.66, 0.2), (0, 0.2)], 0.24, "dark")
    p.line([(0.66, -0.5), (0.66, 0), (0, 0)], 0.24, "dark")
    p.box(-0.24, -0.98, 0.24, 0.98, "body", 0.24)
    p.line([(0, -0.7), (0, 0.8)], 0.05, "light")


@subject("red", "forest")
def mushroom(p: Pen) -> None:
    p.box(-0.26, 0, 0.26, 0.95, "white", 0.12)
    p.half(0, 0.12, 0.95, 0.98, 180, 360)
    for x, y, r in ((-0.5, -0.22, 0.14), (0, -0.5, 0.17), (0.5, -0.2, 0.14)):
        p.ellipse(x, y, r, r, "white")


@subject("red", "room")
def apple(p: Pen) -> None:
    p.line([(0, -0.45), (0.1, -0.95)], 0.1, "wood")
    p.ellipse(0.34, -0.74, 0.28, 0.13, "leaf")
    p.ellipse(-0.3, 0.15, 0.52, 0.66)
    p.ellipse(0.3, 0.15, 0.52, 0.66)
    p.ellipse(-0.42, -0.1, 0.13, 0.2, "light")


@subject("yellow", "room")
def cake(p: Pen) -> None:
    p.box(-0.9, 0.05, 0.9, 0.85, "body", 0.08)
    p.box(-0.65, -0.45, 0.65, 0.08, "light", 0.08)
    p.box(-0.9, 0.35, 0.9, 0.5, "dark")
    for x in (-0.35, 0, 0.35):
        p.line([(x, -0.78), (x, -0.45)], 0.09, "steel")
        p.ellipse(x, -0.88, 0.07, 0.11, "gold")


# --- buildings -------------------------------------------------------------------------------


@subject("red", "grass")
def house(p: Pen) -> None:
    p.box(0.42, -0.85, 0.62, -0.3, "dark")
    p.box(-0.72, -0.12, 0.72, 0.92)
    p.shape([(-0.98, -0.08), (0, -0.92), (0.98, -0.08)], "dark")
    p.box(-0.18, 0.36, 0.18, 0.92, "wood")
    p.box(-0.56, 0.1, -0.26, 0.4, "glass")
    p.box(0.26, 0.1, 0.56, 0.4, "glass")


@subject("gray", "mountain")
def castle(p: Pen) -> None:
    p.box(-0.6, -0.1, 0.6, 0.92)
    for x in (-0.45, -0.1, 0.25):
        p.box(x, -0.3, x + 0.2, -0.05)
    for x in (-0.76, 0.76):
        p.box(x - 0.22, -0.4, x + 0.22, 0.92, "light")
        p.shape([(x - 0.3, -0.38), (x, -0.98), (x + 0.3, -0.38)], "dark")
        p.box(x - 0.07, 0, x + 0.07, 0.25, "ink")
    p.half(0, 0.92, 0.26, 0.5, 180, 360, "wood")


@subject("red", "beach")
def lighthouse(p: Pen) -> None:
    p.shape([(-0.46, 0.98), (-0.28, -0.42), (0.28, -0.42), (0.46, 0.98)], "white")
    p.shape([(-0.41, 0.6), (-0.37, 0.25), (0.37, 0.25), (0.41, 0.6)])
    p.shape([(-0.33, -0.05), (-0.29, -0.35), (0.29, -0.35), (0.33, -0.05)])
    p.box(-0.22, -0.72, 0.22, -0.4, "gold")
    p.half(0, -0.7, 0.3, 0.28, 180, 360, "dark")


@subject("orange", "forest")
def tent(p: Pen) -> None:
    p.shape([(-1, 0.8), (0, -0.75), (1, 0.8)])
    p.shape([(0, -0.75), (1, 0.8), (0.5, 0.8)], "dark")
    p.shape([(-0.3, 0.8), (0, -0.1), (0.3, 0.8)], "ink")


# --- things to hold --------------------------------------------------------------------------


@subject("white", "room", holds=True)
def cup(p: Pen) -> None:
    p.ring(0.5, 0.1, 0.42, 0.4, 0.16, "dark", (-100, 100))
    p.shape([(-0.72, -0.6), (0.6, -0.6), (0.46, 0.75), (-0.56, 0.75)])
    p.ellipse(-0.06, -0.6, 0.66, 0.16, "dark")


@subject("blue", "room")
def teapot(p: Pen) -> None:
    p.ring(0.66, 0.15, 0.32, 0.4, 0.13, "dark", (-100, 100))
    p.shape([(-0.5, 0.45), (-1, -0.35), (-0.82, -0.42), (-0.4, 0)])
    p.ellipse(0, 0.25, 0.66, 0.58)
    p.half(0, -0.22, 0.4, 0.3, 180, 360, "dark")
    p.ellipse(0, -0.6, 0.11, 0.11, "dark")
    p.ellipse(-0.22, 0.08, 0.14, 0.22, "light")


@subject("turquoise", "street", holds=True)
def backpack(p: Pen) -> None:
    p.ring(0, -0.72, 0.24, 0.24, 0.11, "dark", (180, 360))
    p.box(-0.9, 0.1, -0.5, 0.75, "dark", 0.12)
    p.box(0.5, 0.1, 0.9, 0.75, "dark", 0.12)
    p.box(-0.66, -0.72, 0.66, 0.92, "body", 0.42)
    p.box(-0.44, 0.2, 0.44, 0.72, "dark", 0.12)
    p.line([(-0.44, -0.12), (0.44, -0.12)], 0.09, "light")
    p.line([(-0.3, 0.38), (0.3, 0.38)], 0.06, "light")


@subject("blue", "room", plural="lunchboxes", holds=True)
def lunchbox(p: Pen) -> None:
    p.ring(0, -0.45, 0.34, 0.34, 0.13, "dark", (180, 360))
    p.box(-0.95, -0.48, 0.95, 0.72, "body", 0.16)
    p.box(-0.95, 0, 0.95, 0.1, "dark")
    p.box(-0.6, -0.06, -0.4, 0.2, "steel")
    p.box(0.4, -0.06, 0.6, 0.2, "steel")


@subject("orange", "grass")
def ball(p: Pen) -> None:
    p.ellipse(0, 0, 0.85, 0.85)
    p.ellipse(0, 0, 0.36, 0.85, "light")
    p.line([(-0.85, 0), (0.85, 0)], 0.09, "dark")


@subject("green", "room")
def book(p: Pen) -> None:
    p.box(-0.72, -0.9, 0.72, 0.9, "dark", 0.06)
    p.box(-0.5, -0.9, 0.72, 0.9, "body", 0.06)
    p.box(-0.2, -0.6, 0.44, -0.15, "light")
    p.line([(-0.15, 0.35), (0.4, 0.35)], 0.08, "light")


@subject("brown", "room")
def chair(p: Pen) -> None:
    p.box(-0.62, -0.95, -0.42, 0.95, "dark")
    p.box(0.42, 0.15, 0.62, 0.95, "dark")
    p.box(-0.62, -0.9, 0.02, -0.1, "body", 0.1)
    p.box(-0.65, 0.02, 0.68, 0.3, "body", 0.08)


@subject("yellow", "room")
def lamp(p: Pen) -> None:
    p.line([(0, -0.2), (0, 0.85)], 0.12, "steel")
    p.ellipse(0, 0.88, 0.42, 0.1, "steel")
    p.shape([(-0.36, -0.95), (0.36, -0.95), (0.72, -0.05), (-0.72, -0.05)])
    p.shape([(-0.16, -0.95), (0.16, -0.95), (0.26, -0.05), (-0.26, -0.05)], "light")


@subject("purple", "beach")
def umbrella(p: Pen) -> None:
    p.line([(0, -0.4), (0, 0.76)], 0.09, "wood")
    p.ring(0.15, 0.74, 0.15, 0.18, 0.09, "wood", (0, 180))
    p.half(0, 0, 0.98, 0.9, 180, 360)
    p.half(0, 0, 0.38, 0.9, 180, 360, "dark")


@subject("black", "room")
def hat(p: Pen) -> None:
    p.box(-0.5, -0.75, 0.5, 0.4, "body", 0.08)
    p.box(-0.5, 0.08, 0.5, 0.32, "dark")
    p.ellipse(0, 0.45, 0.98, 0.2)


@subject("white", "room")
def clock(p: Pen) -> None:
    p.ellipse(0, 0, 0.9, 0.9, "dark")
    p.ellipse(0, 0, 0.72, 0.72, "light")
    p.line([(0, 0.04), (0, -0.55)], 0.1, "ink")
    p.line([(0, 0), (0.4, 0.18)], 0.1, "ink")


@subject("yellow", "night", flies=True)
def star(p: Pen) -> None:
    p.shape(_star(5, 0.45))


@subject("red", "plain", flies=True)
def heart(p: Pen) -> None:
    p.ellipse(-0.42, -0.3, 0.46, 0.46)
    p.ellipse(0.42, -0.3, 0.46, 0.46)
    p.shape([(-0.85, -0.12), (0, -0.25), (0.85, -0.12), (0, 0.92)])
    p.ellipse(-0.48, -0.4, 0.14, 0.16, "light")


# --- in the sky (galaxies are painted whole: see galaxy.py) ------------------------------------


@subject("orange", "space", flies=True)
def planet(p: Pen) -> None:
    p.ring(0, 0, 0.98, 0.34, 0.12, "light", (180, 360))
    p.ellipse(0, 0, 0.62, 0.62)
    p.ellipse(-0.18, -0.28, 0.3, 0.1, "light")
    p.ellipse(0.12, 0.28, 0.38, 0.1, "dark")
    p.ring(0, 0, 0.98, 0.34, 0.12, "light", (0, 180))


@subject("yellow", "night", flies=True)
def moon(p: Pen) -> None:
    outer = [(math.cos(a), math.sin(a)) for a in (math.radians(d) for d in range(60, 301, 12))]
    inner = [
        (0.42 + 0.87 * math.cos(a), 0.87 * math.sin(a))
        for a in (math.radians(d) for d in range(276, 83, -12))
    ]
    p.shape([(0.9 * x, 0.9 * y) for x, y in outer + inner])


@subject("yellow", "grass", flies=True)
def sun(p: Pen) -> None:
    p.shape(_star(12, 0.72, -90), "dark")
    p.ellipse(0, 0, 0.62, 0.62)
    _face(p, -0.08, 0.2, 0.06)
    p.ring(0, 0.08, 0.26, 0.2, 0.05, "ink", (20, 160))


# --- held out wholly: no picture and no word of these is ever trained on ------------------------


@subject("brown", "forest")
def owl(p: Pen) -> None:
    p.shape([(-0.55, -0.5), (-0.6, -1), (-0.15, -0.75)], "dark")
    p.shape([(0.55, -0.5), (0.6, -1), (0.15, -0.75)], "dark")
    p.ellipse(0, 0.1, 0.62, 0.86)
    p.ellipse(0, 0.42, 0.38, 0.46, "light")
    for x in (-0.26, 0.26):
        p.ellipse(x, -0.38, 0.26, 0.26, "white")
        p.ellipse(x, -0.38, 0.12, 0.12, "ink")
    p.shape([(-0.1, -0.22), (0.1, -0.22), (0, 0)], "gold")


@subject("green", "beach")
def turtle(p: Pen) -> None:
    p.ellipse(-0.8, 0.1, 0.22, 0.2, "light")
    p.ellipse(-0.86, 0.04, 0.05, 0.06, "ink")
    p.ellipse(-0.4, 0.58, 0.18, 0.24, "light")
    p.ellipse(0.4, 0.58, 0.18, 0.24, "light")
    p.half(0, 0.45, 0.72, 0.9, 180, 360)
    for x in (-0.36, 0, 0.36):
        p.ellipse(x, 0.12, 0.13, 0.16, "dark")


@subject("brown", "room")
def guitar(p: Pen) -> None:
    p.line([(0, 0), (0, -0.85)], 0.16, "wood")
    p.box(-0.14, -1, 0.14, -0.78, "ink")
    p.ellipse(0, 0.05, 0.4, 0.34)
    p.ellipse(0, 0.52, 0.56, 0.46)
    p.ellipse(0, 0.3, 0.16, 0.16, "ink")


@subject("gray", "room")
def robot(p: Pen) -> None:
    p.line([(0, -0.6), (0, -0.95)], 0.07, "steel")
    p.ellipse(0, -0.95, 0.09, 0.09, "gold")
    p.box(-0.46, -0.72, 0.46, -0.08, "light", 0.1)
    p.box(-0.58, 0, 0.58, 0.72, "body", 0.08)
    p.box(-0.86, 0.05, -0.64, 0.55, "dark", 0.08)
    p.box(0.64, 0.05, 0.86, 0.55, "dark", 0.08)
    p.box(-0.4, 0.72, -0.12, 0.98, "dark")
    p.box(0.12, 0.72, 0.4, 0.98, "dark")
    _face(p, -0.42, 0.2, 0.1)


@subject("brown", "grass")
def snail(p: Pen) -> None:
    p.shape([(-0.95, 0.75), (-0.8, 0.1), (-0.55, 0.1), (-0.5, 0.5), (0.95, 0.75)], "light")
    p.line([(-0.72, 0.15), (-0.9, -0.25)], 0.06, "ink")
    p.line([(-0.64, 0.15), (-0.6, -0.3)], 0.06, "ink")
    p.ellipse(0.15, 0.05, 0.6, 0.6)
    p.ring(0.15, 0.05, 0.38, 0.38, 0.11, "dark", (0, 300))


@subject("yellow", "room")
def crown(p: Pen) -> None:
    p.shape(
        [(-0.9, 0.6), (-0.95, -0.6), (-0.45, 0), (0, -0.85), (0.45, 0), (0.95, -0.6), (0.9, 0.6)]
    )
    p.box(-0.9, 0.45, 0.9, 0.75, "dark")
    for x in (-0.5, 0, 0.5):
        p.ellipse(x, 0.6, 0.09, 0.09, "white")


HELD_OUT = ("owl", "turtle", "guitar", "robot", "snail", "crown")
