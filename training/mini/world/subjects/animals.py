"""Animals: heads, bellies and ears are ellipses."""

from ..pen import Pen
from .registry import subject


@subject("orange", "grass")
def cat(p: Pen) -> None:
    p.ring(0.5, 0.5, 0.4, 0.4, 0.14, "dark", (-70, 90))
    p.ellipse(0, 0.5, 0.5, 0.5)
    p.shape([(-0.58, -0.28), (-0.56, -1), (-0.08, -0.62)])
    p.shape([(0.58, -0.28), (0.56, -1), (0.08, -0.62)])
    p.ellipse(0, -0.28, 0.6, 0.5)
    p.ellipse(0, 0.6, 0.26, 0.36, "light")
    p.eyes(-0.34, 0.25, 0.09)
    p.shape([(-0.09, -0.15), (0.09, -0.15), (0, -0.04)], "ink")


@subject("brown", "grass")
def dog(p: Pen) -> None:
    p.ellipse(0, 0.52, 0.48, 0.48)
    p.ellipse(0, -0.32, 0.56, 0.55)
    p.ellipse(-0.6, -0.22, 0.2, 0.52, "dark")
    p.ellipse(0.6, -0.22, 0.2, 0.52, "dark")
    p.ellipse(0, -0.08, 0.28, 0.24, "light")
    p.eyes(-0.42, 0.22, 0.08)
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
    p.eyes(-0.06, 0.17, 0.07)
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
    p.eyes(-0.5, 0.22, 0.07)
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
    p.eyes(-0.6, 0.14, 0.05)
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
