"""Describe scenes: full sentences, forms with a position, short forms, and the vocabulary of the world."""

from random import Random

from .backgrounds import BACKGROUNDS
from .pen import COLORS
from .scenes import RELATIONS, Scene, Thing
from .styles import STYLES
from .subjects import HELD_OUT, SUBJECTS

NUMBERS = {1: "a", 2: "two", 3: "three", 4: "four"}
PRAISE = ("beautiful", "lovely", "nice", "pretty", "cute")
_SIZE_WORDS = {"small": ("small", "little", "tiny"), "big": ("big", "large", "huge"), "": ("",)}
_BETWEEN = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
    "on": ("on", "on top of"),
    "in": ("in", "inside"),
}


def with_article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def noun_phrase(thing: Thing, rng: Random, *, color: bool = True) -> str:
    """Describe a thing with its article or number, size and color: "three small red apples"."""
    name = thing.subject if thing.count == 1 else SUBJECTS[thing.subject].plural
    size = rng.choice(_SIZE_WORDS[thing.size])
    praise = rng.choice(PRAISE) if rng.random() < (0.6 if name == "galaxy" else 0.06) else ""
    words = [praise, size, thing.color if color and thing.color else "", name]
    phrase = " ".join(w for w in words if w)
    return with_article(phrase) if thing.count == 1 else f"{NUMBERS[thing.count]} {phrase}"


def caption(scene: Scene, rng: Random) -> str:
    """Describe a scene in one of many ways. Most name everything that can vary."""
    style = STYLES[scene.style]
    where = rng.choice(BACKGROUNDS[scene.background]) if style.has_background else ""
    if not scene.things:
        what = rng.choice(("{}", "an empty place {}", "nothing {}")).format(where)
        return rng.choice(style.phrases).format(what)
    if scene.things[0].subject == "galaxy":
        what = noun_phrase(scene.things[0], rng) + rng.choice(("", "", " in space", " among the stars"))
        return rng.choice(style.phrases).format(what)
    what = _pair(scene, rng) if scene.relation else _single(scene, rng)
    is_implied = where in BACKGROUNDS["plain"] or (
        not scene.relation and SUBJECTS[scene.things[0].subject].background == scene.background
    )
    if where and not (is_implied and rng.random() < 0.4):
        what = f"{where}, {what}" if rng.random() < 0.08 else f"{what} {where}"
    return rng.choice(style.phrases).format(what)


def _single(scene: Scene, rng: Random) -> str:
    thing = scene.things[0]
    natural = thing.color == SUBJECTS[thing.subject].color
    return noun_phrase(thing, rng, color=not (natural and rng.random() < 0.4))


def _pair(scene: Scene, rng: Random) -> str:
    first, second = (noun_phrase(t, rng) for t in scene.things)
    relation, form = scene.relation, rng.random()
    if relation == "left" and form < 0.35:
        return f"on the left {first} and on the right {second}"
    if relation == "left" and form < 0.45:
        return f"{first} and {second}"
    if relation in ("left", "above") and form < 0.7:  # the same relation, seen from the other thing
        relation = {"left": "right", "above": "below"}[relation]
        first, second = second, first
    return f"{first} {rng.choice(_BETWEEN[relation])} {second}"


def vocabulary() -> list[str]:
    """Return every word of the world, also those of held-out subjects. Each becomes one token."""
    sentences = [
        *COLORS,
        *PRAISE,
        *NUMBERS.values(),
        *RELATIONS,
        "galaxy galaxies one five an the and with",
    ]
    sentences += [f"{name} {s.plural}" for name, s in SUBJECTS.items()]
    sentences += [
        phrase for group in (_SIZE_WORDS, _BETWEEN, BACKGROUNDS) for phrases in group.values() for phrase in phrases
    ]
    sentences += [phrase.replace("{}", " ").replace(",", " , ") for s in STYLES.values() for phrase in s.phrases]
    sentences += [
        "an empty place nothing on the left and on the right",
        ". , - * my your this it is",
    ]
    return sorted({word for sentence in sentences for word in sentence.split()})


def held_out_words() -> set[str]:
    return {w for name in HELD_OUT for w in (name, SUBJECTS[name].plural)}
