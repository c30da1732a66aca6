"""The grader's eight questions: which scenes are asked for, in which words, and when a picture is right.

Six are GenEval's (Ghosh et al., 2023), put in our world; style and place are ours. Only combinations that
were held out from training are asked for. It knows what was seen in a picture, not who looked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from ..world.backgrounds import BACKGROUNDS
from ..world.captions import caption
from ..world.pen import COLORS
from ..world.scenes import Domain, Instance, Scene, is_unseen, sample
from ..world.styles import STYLES
from ..world.subjects import SUBJECTS


@dataclass(frozen=True)
class ImageContent:
    """What stands where in a picture, in front of what, and in which style."""

    instances: tuple[Instance, ...]
    background: str
    style: str

    def find(self, subject: str, color: str | None = None) -> list[Instance]:
        """Those spots where a subject stands; in one color, if that is asked."""
        found = [s for s in self.instances if s.thing.subject == subject]
        return found if color is None else [s for s in found if s.thing.color == color]


@dataclass(frozen=True)
class Question:
    """One kind of question. `fits` says which scenes it may ask for, `right` whether a picture shows
    what was asked; `goal` is the share of right pictures we want, `others` are SD 1.5's and SDXL's shares
    on the real GenEval."""

    name: str
    accepts: Callable[[Scene], bool]
    is_correct: Callable[[Scene, ImageContent], bool]
    goal: float
    other_models: tuple[float, float] | None = None
    balance_by: Callable[[Scene], str] | None = None  # each answer is asked for equally often, see `_turns`


@dataclass(frozen=True)
class Prompt:
    """One question put: the words, the scene they mean, and the number that decided both."""

    text: str
    scene: Scene
    index: int


def _one(scene: Scene) -> bool:
    return len(scene.things) == 1 and scene.things[0].count == 1


def _thing(scene: Scene) -> bool:
    return _one(scene) and scene.things[0].subject in SUBJECTS


def _pair(scene: Scene) -> bool:
    return len(scene.things) == 2


def _two_colors(scene: Scene) -> bool:
    return _pair(scene) and len({t.color for t in scene.things} - {None}) == 2


def _shown(scene: Scene, seen: ImageContent) -> bool:
    return all(seen.find(t.subject) for t in scene.things)


def _colored(scene: Scene, seen: ImageContent) -> bool:
    return all(seen.find(t.subject, t.color) for t in scene.things)


def _counted(scene: Scene, seen: ImageContent) -> bool:
    return len(seen.find(scene.things[0].subject)) == scene.things[0].count


def is_related(first: Instance, second: Instance, relation: str) -> bool:
    """Whether one spot lies to another as `relation` says.

    Left and above as in GenEval: middles further apart than a tenth of both widths. On: above it, over it
    and touching. In: above its middle, over it and well into it.
    """
    reach = first.radius + second.radius
    right, down = second.x - first.x, second.y - first.y
    if relation == "left":
        return right > 0.2 * reach
    over = abs(right) < second.radius
    return (
        down > 0.2 * reach
        and {
            "above": True,
            "on": over and down < 1.15 * reach,
            "in": over and down < 0.8 * reach,
        }[relation]
    )


def _placed(scene: Scene, seen: ImageContent) -> bool:
    first, second = (seen.find(t.subject) for t in scene.things)
    return any(is_related(a, b, scene.relation) for a in first for b in second)


QUESTIONS: tuple[Question, ...] = (
    Question("one object", _thing, _shown, 0.97, (0.97, 0.98)),
    Question("two objects", _pair, _shown, 0.85, (0.38, 0.74)),
    Question(
        "counting",
        lambda s: len(s.things) == 1 and s.things[0].count > 1,
        _counted,
        0.85,
        (0.35, 0.39),
        lambda s: str(s.things[0].count),
    ),
    Question(
        "colors",
        lambda s: _thing(s) and s.things[0].color is not None,
        _colored,
        0.95,
        (0.76, 0.85),
        lambda s: str(s.things[0].color),
    ),
    Question("position", _pair, _placed, 0.75, (0.04, 0.15), lambda s: s.relation),
    Question("color attribution", _two_colors, _colored, 0.75, (0.06, 0.23)),
    Question("style", _thing, lambda scene, seen: seen.style == scene.style, 0.9, None, lambda s: s.style),
    Question(
        "place",
        lambda s: _thing(s) and STYLES[s.style].has_background,
        lambda scene, seen: seen.background == scene.background,
        0.95,
        None,
        lambda s: s.background,
    ),
)
GENEVAL = 6  # the first six


def is_fully_described(scene: Scene, text: str) -> bool:
    """Whether a caption says all of a scene: every color, the place, and which thing lies where."""
    words = text.replace(",", "").split()
    if any(t.color and t.color not in words for t in scene.things):
        return False
    if STYLES[scene.style].has_background and not any(phrase in text for phrase in BACKGROUNDS[scene.background]):
        return False
    sides = "and" not in words or "on the left" in text  # "a cat and a dog" tells no sides
    return sides or not _pair(scene)


def make_prompts(question: Question, part: Domain, count: int, seed: int = 0) -> list[Prompt]:
    """`count` different prompts of one kind, about held-out combinations of a part of the world."""
    world = replace(part, galaxies=0.0, pairs=0.4, counts=0.3, empty=0.0)
    turns = _turns(question, part)
    asked: dict[str, Prompt] = {}
    index = 1_000_000 * QUESTIONS.index(question)  # no two questions ask for the same scene
    while len(asked) < count:
        index += 1
        scene = sample(world, index, seed, unseen=True)
        if not question.accepts(scene) or (
            question.balance_by and question.balance_by(scene) != turns[len(asked) % len(turns)]
        ):
            continue
        assert is_unseen(scene)
        rng, text = Random(f"ask {seed}/{index}"), ""
        while not is_fully_described(scene, text):
            text = caption(scene, rng)
        asked.setdefault(text, Prompt(text, scene, index))
    return list(asked.values())


def _turns(question: Question, part: Domain) -> Sequence[str]:
    kinds: dict[str, Sequence[str]] = {
        "counting": ("2", "3", "4"),
        "colors": tuple(COLORS),
        "position": (
            "left",
            "left",
            "above",
            "above",
            "on",
            "in",
        ),  # left of, right of, above, below
        "style": tuple(part.styles),
        "place": tuple(BACKGROUNDS),
    }
    return kinds.get(question.name, ())
