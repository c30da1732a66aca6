"""Plants and food, buildings, things to hold, and what shines in the sky."""

import math

from ..pen import Pen, star_corners
from .registry import subject


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


@subject("white", "room", is_container=True)
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


@subject("turquoise", "street", is_container=True)
def backpack(p: Pen) -> None:
    p.ring(0, -0.72, 0.24, 0.24, 0.11, "dark", (180, 360))
    p.box(-0.9, 0.1, -0.5, 0.75, "dark", 0.12)
    p.box(0.5, 0.1, 0.9, 0.75, "dark", 0.12)
    p.box(-0.66, -0.72, 0.66, 0.92, "body", 0.42)
    p.box(-0.44, 0.2, 0.44, 0.72, "dark", 0.12)
    p.line([(-0.44, -0.12), (0.44, -0.12)], 0.09, "light")
    p.line([(-0.3, 0.38), (0.3, 0.38)], 0.06, "light")


@subject("blue", "room", plural="lunchboxes", is_container=True)
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
    p.shape(star_corners(5, 0.45))


@subject("red", "plain", flies=True)
def heart(p: Pen) -> None:
    p.ellipse(-0.42, -0.3, 0.46, 0.46)
    p.ellipse(0.42, -0.3, 0.46, 0.46)
    p.shape([(-0.85, -0.12), (0, -0.25), (0.85, -0.12), (0, 0.92)])
    p.ellipse(-0.48, -0.4, 0.14, 0.16, "light")


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
    inner = [(0.42 + 0.87 * math.cos(a), 0.87 * math.sin(a)) for a in (math.radians(d) for d in range(276, 83, -12))]
    p.shape([(0.9 * x, 0.9 * y) for x, y in outer + inner])


@subject("yellow", "grass", flies=True)
def sun(p: Pen) -> None:
    p.shape(star_corners(12, 0.72), "dark")
    p.ellipse(0, 0, 0.62, 0.62)
    p.eyes(-0.08, 0.2, 0.06)
    p.ring(0, 0.08, 0.26, 0.2, 0.05, "ink", (20, 160))
