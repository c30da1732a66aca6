"""Scenes of the synthetic world: sample them by number, and draw them.

A `Scene` is everything an image shows. `draw` makes the image, and `caption` in captions.py the text. Scene number i of
a domain is the same on every machine.
"""

import hashlib
from dataclasses import dataclass, replace
from random import Random

import numpy as np
from PIL import Image

from .backgrounds import BACKGROUNDS, GALAXY_COLORS, PAINTERS, Canvas, find_edges, paint_galaxy, paint_icon, paint_wall
from .pen import COLORS, Pen
from .styles import STYLES
from .subjects import HELD_OUT, SUBJECTS

SIZES = {"small": 0.72, "": 1.0, "big": 1.32}
RELATIONS = ("left", "above", "on", "in")


@dataclass(frozen=True)
class Thing:
    """`count` of one `subject`, of one `color` and `size`."""

    subject: str
    color: str | None
    size: str = ""
    count: int = 1


@dataclass(frozen=True)
class Scene:
    """One or two things, the relation of the first to the second, the background and the style."""

    things: tuple[Thing, ...]
    relation: str = ""
    background: str = "plain"
    style: str = "flat"


@dataclass(frozen=True)
class Domain:
    """A part of the world to train on: its subjects, the weights of its styles, and the share of each kind of scene."""

    subjects: tuple[str, ...]
    styles: dict[str, float]
    galaxies: float = 0.06
    pairs: float = 0.2
    counts: float = 0.16
    empty: float = 0.02
    mixed_in: "Domain | None" = None  # another domain, for a share of the scenes
    mixed_share: float = 0.0


WHOLE_WORLD = Domain(
    subjects=tuple(name for name in SUBJECTS if name not in HELD_OUT),
    styles={"flat": 0.4} | {name: 0.075 for name in STYLES if name != "flat"},
)
# What two cores can train on in an hour and a half.
FIRST_PART = Domain(
    subjects=(
        "cat",
        "dog",
        "rabbit",
        "bird",
        "fish",
        "car",
        "boat",
        "rocket",
        "balloon",
        "tree",
        "flower",
        "apple",
        "house",
        "castle",
        "cup",
        "teapot",
        "backpack",
        "umbrella",
        "star",
        "planet",
        "moon",
    ),
    styles={"flat": 0.74, "oil": 0.08, "pixel": 0.09, "icon": 0.09},
    galaxies=0.12,
    pairs=0.08,
    counts=0.1,
)

# For fine-tuning: two different things, several of a thing, and the whole world in half of the scenes.
MANY_THINGS = replace(
    FIRST_PART,
    galaxies=0.04,
    pairs=0.5,
    counts=0.2,
    empty=0.01,
    mixed_in=replace(WHOLE_WORLD, galaxies=0.03, pairs=0.45, counts=0.2),
    mixed_share=0.5,
)


def is_held_out(subject: str, color: str | None, background: str, style: str) -> bool:
    """Say whether a combination is held out from training: a tenth of all, chosen by a hash."""
    key = f"{subject} {color} {background} {style}".encode()
    return hashlib.sha256(key).digest()[0] < 26


def is_unseen(scene: Scene) -> bool:
    """Say whether any thing of a scene is a held-out subject or a held-out combination."""
    return any(
        t.subject in HELD_OUT or is_held_out(t.subject, t.color, scene.background, scene.style) for t in scene.things
    )


def sample(domain: Domain, index: int, seed: int = 0, *, unseen: bool = False) -> Scene:
    """Return scene `index` of a domain. With `unseen`, one that is held out from training."""
    rng = Random(f"{seed}/{index}/{unseen}")
    while True:
        scene = _sample(domain, rng)
        if not scene.things or is_unseen(scene) == unseen:
            return scene


def _sample(domain: Domain, rng: Random) -> Scene:
    if domain.mixed_in and rng.random() < domain.mixed_share:
        domain = domain.mixed_in
    kind = rng.random()
    if kind < domain.galaxies:
        color = rng.choice(GALAXY_COLORS) if rng.random() < 0.6 else None
        return Scene((Thing("galaxy", color, rng.choice(("", "", "small", "big"))),), background="space")
    style = rng.choices(list(domain.styles), list(domain.styles.values()))[0]
    background = rng.choice(list(BACKGROUNDS)) if STYLES[style].has_background else "plain"
    kind -= domain.galaxies
    if kind < domain.empty and STYLES[style].has_background:
        return Scene((), background=background, style=style)
    first = _thing(domain, rng, style)
    if kind < domain.empty + domain.counts:
        return Scene((replace(first, count=rng.choice((2, 2, 3, 3, 4)), size=""),), background=background, style=style)
    if kind < domain.empty + domain.counts + domain.pairs:
        relation = rng.choices(RELATIONS, (0.5, 0.2, 0.15, 0.15))[0]
        second = _thing(domain, rng, style)
        if relation == "in":
            second = replace(second, subject=rng.choice([n for n in domain.subjects if SUBJECTS[n].is_container]))
        if second.subject != first.subject:
            things = replace(first, size=""), replace(second, size="")
            return Scene(things, relation, background, style)
    natural = SUBJECTS[first.subject]
    if STYLES[style].has_background and rng.random() < 0.12:  # its natural color and background
        return Scene(
            (Thing(first.subject, natural.color if STYLES[style].has_color else None),),
            background=natural.background,
            style=style,
        )
    return Scene((first,), background=background, style=style)


def _thing(domain: Domain, rng: Random, style: str) -> Thing:
    color = rng.choice(list(COLORS)) if STYLES[style].has_color else None
    size = rng.choices(("", "small", "big"), (0.7, 0.15, 0.15))[0]
    return Thing(rng.choice(domain.subjects), color, size)


# Centers (x, y) and radii, in fractions of the side.
_COUNTED = {
    1: ((0.5, 0.55, 0.28),),
    2: ((0.28, 0.57, 0.19), (0.72, 0.57, 0.19)),
    3: ((0.19, 0.58, 0.15), (0.5, 0.58, 0.15), (0.81, 0.58, 0.15)),
    4: ((0.29, 0.33, 0.16), (0.71, 0.33, 0.16), (0.29, 0.73, 0.16), (0.71, 0.73, 0.16)),
}
_RELATED = {
    "left": ((0.27, 0.58, 0.2), (0.73, 0.58, 0.2)),
    "above": ((0.5, 0.25, 0.17), (0.5, 0.72, 0.2)),
    "on": ((0.5, 0.345, 0.16), (0.5, 0.7, 0.22)),
    "in": ((0.5, 0.42, 0.19), (0.5, 0.68, 0.26)),
}


@dataclass(frozen=True)
class Instance:
    """One drawn thing, with its center and radius in fractions of the image."""

    thing: Thing
    x: float
    y: float
    radius: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) in fractions of the image."""
        return self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius


def arrange(scene: Scene, rng: Random) -> list[Instance]:
    """Return the positions of everything in a scene, in the order of painting."""
    if not scene.things:
        return []
    if scene.relation:
        instances = [Instance(t, *at) for t, at in zip(scene.things, _RELATED[scene.relation], strict=True)]
    else:
        thing = scene.things[0]
        scale = SIZES[thing.size]
        instances = [Instance(thing, x, y, r * scale) for x, y, r in _COUNTED[thing.count]]
    dx, dy = (rng.uniform(-0.05, 0.05) if len(instances) < 3 else 0.0 for _ in range(2))
    if len(instances) == 1 and SUBJECTS.get(instances[0].thing.subject) and SUBJECTS[instances[0].thing.subject].flies:
        dy -= 0.08
    return [replace(s, x=s.x + dx, y=s.y + dy) for s in instances]


def draw(scene: Scene, seed: int = 0, side: int = 128) -> Image.Image:
    """Draw a scene, `side` pixels wide. `seed` decides what the caption does not."""
    return draw_with_instances(scene, seed, side)[0]


def draw_with_instances(scene: Scene, seed: int = 0, side: int = 128) -> tuple[Image.Image, list[Instance]]:
    """Draw a scene and return the image and the positions of everything in it."""
    rng, style = Random(f"draw {seed}"), STYLES[scene.style]
    canvas = Canvas(side * 2, rng)
    if scene.things and scene.things[0].subject == "galaxy":
        paint_galaxy(canvas, scene.things[0].color, 0.95 * SIZES[scene.things[0].size])
    elif not style.has_background:
        (paint_icon if scene.style == "icon" else paint_wall)(canvas)
    else:
        PAINTERS[scene.background](canvas)
        if scene.style == "pencil":
            canvas.image.paste(find_edges(canvas.image).convert("RGB"))
    instances = arrange(scene, rng)
    for instance in instances:
        if instance.thing.subject != "galaxy":
            color = COLORS[instance.thing.color or "white"]
            pen = Pen(
                canvas.draw,
                instance.x * canvas.side,
                instance.y * canvas.side,
                instance.radius * canvas.side,
                color,
                style.fill,
            )
            SUBJECTS[instance.thing.subject].draw(pen)
    image = canvas.image.reduce(2)
    return Image.fromarray(style.finish(np.asarray(image))), instances
