"""Vehicles, on land, on water and in the air."""

from ..pen import Pen
from .registry import subject


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


@subject("red", "beach", is_container=True)
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
