"""Six subjects that are never drawn in training and never named in a caption."""

from ..pen import Pen
from .registry import subject


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
    p.eyes(-0.42, 0.2, 0.1)


@subject("brown", "grass")
def snail(p: Pen) -> None:
    p.shape([(-0.95, 0.75), (-0.8, 0.1), (-0.55, 0.1), (-0.5, 0.5), (0.95, 0.75)], "light")
    p.line([(-0.72, 0.15), (-0.9, -0.25)], 0.06, "ink")
    p.line([(-0.64, 0.15), (-0.6, -0.3)], 0.06, "ink")
    p.ellipse(0.15, 0.05, 0.6, 0.6)
    p.ring(0.15, 0.05, 0.38, 0.38, 0.11, "dark", (0, 300))


@subject("yellow", "room")
def crown(p: Pen) -> None:
    p.shape([(-0.9, 0.6), (-0.95, -0.6), (-0.45, 0), (0, -0.85), (0.45, 0), (0.95, -0.6), (0.9, 0.6)])
    p.box(-0.9, 0.45, 0.9, 0.75, "dark")
    for x in (-0.5, 0, 0.5):
        p.ellipse(x, 0.6, 0.09, 0.09, "white")
