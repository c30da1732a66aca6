"""The eight questions of the grader: which scenes they ask for, with which prompts, and when an image is correct.

Six are from GenEval (Ghosh et al., 2023), adapted to our world. Style and place (the background) are ours. All prompts
are about combinations that were held out from training.
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
    """What an image shows: the things and their positions, the background and the style."""

    instances: tuple[Instance, ...]
    background: str
    style: str

    def find(self, subject: str, color: str | None = None) -> list[Instance]:
        """Return the instances of a subject, or only those in one color."""
        same_subject = [i for i in self.instances if i.thing.subject == subject]
        return same_subject if color is None else [i for i in same_subject if i.thing.color == color]


@dataclass(frozen=True)
class Question:
    """One kind of prompt. `accepts` says which scenes it may ask for, `is_correct` whether an image shows the scene.

    `goal` is the share of correct images that we aim for. `other_models` are the shares of SD 1.5 and SDXL on the real
    GenEval.
    """

    name: str
    accepts: Callable[[Scene], bool]
    is_correct: Callable[[Scene, ImageContent], bool]
    goal: float
    other_models: tuple[float, float] | None = None
    balance_by: Callable[[Scene], str] | None = None  # prompts are balanced over the values of this


@dataclass(frozen=True)
class Prompt:
    """A text, the scene that it describes, and the number that both were sampled with."""

    text: str
    scene: Scene
    index: int


def _has_one_thing(scene: Scene) -> bool:
    return len(scene.things) == 1 and scene.things[0].count == 1


def _has_one_subject(scene: Scene) -> bool:
    return _has_one_thing(scene) and scene.things[0].subject in SUBJECTS


def _is_pair(scene: Scene) -> bool:
    return len(scene.things) == 2


def _has_two_colors(scene: Scene) -> bool:
    return _is_pair(scene) and len({t.color for t in scene.things} - {None}) == 2


def _shows_subjects(scene: Scene, content: ImageContent) -> bool:
    return all(content.find(t.subject) for t in scene.things)


def _shows_colors(scene: Scene, content: ImageContent) -> bool:
    return all(content.find(t.subject, t.color) for t in scene.things)


def _shows_count(scene: Scene, content: ImageContent) -> bool:
    return len(content.find(scene.things[0].subject)) == scene.things[0].count


def is_related(first: Instance, second: Instance, relation: str) -> bool:
    """Say whether one instance has a `relation` to another.

    Left and above as in GenEval: the centers are apart by more than a tenth of both widths. On: above it, within its
    width and touching. In: above its center, within its width and overlapping a lot.
    """
    reach = first.radius + second.radius
    dx, dy = second.x - first.x, second.y - first.y
    if relation == "left":
        return dx > 0.2 * reach
    over = abs(dx) < second.radius
    return (
        dy > 0.2 * reach
        and {
            "above": True,
            "on": over and dy < 1.15 * reach,
            "in": over and dy < 0.8 * reach,
        }[relation]
    )


def _shows_relation(scene: Scene, content: ImageContent) -> bool:
    first, second = (content.find(t.subject) for t in scene.things)
    return any(is_related(a, b, scene.relation) for a in first for b in second)


QUESTIONS: tuple[Question, ...] = (
    Question("one object", _has_one_subject, _shows_subjects, 0.97, (0.97, 0.98)),
    Question("two objects", _is_pair, _shows_subjects, 0.85, (0.38, 0.74)),
    Question(
        "counting",
        lambda s: len(s.things) == 1 and s.things[0].count > 1,
        _shows_count,
        0.85,
        (0.35, 0.39),
        lambda s: str(s.things[0].count),
    ),
    Question(
        "colors",
        lambda s: _has_one_subject(s) and s.things[0].color is not None,
        _shows_colors,
        0.95,
        (0.76, 0.85),
        lambda s: str(s.things[0].color),
    ),
    Question("position", _is_pair, _shows_relation, 0.75, (0.04, 0.15), lambda s: s.relation),
    Question("color attribution", _has_two_colors, _shows_colors, 0.75, (0.06, 0.23)),
    Question(
        "style", _has_one_subject, lambda scene, content: content.style == scene.style, 0.9, None, lambda s: s.style
    ),
    Question(
        "place",
        lambda s: _has_one_subject(s) and STYLES[s.style].has_background,
        lambda scene, content: content.background == scene.background,
        0.95,
        None,
        lambda s: s.background,
    ),
)
GENEVAL = 6  # the first six


def is_fully_described(scene: Scene, text: str) -> bool:
    """Say whether a caption describes all of a scene: every color, the background, and the side of each thing."""
    words = text.replace(",", "").split()
    if any(t.color and t.color not in words for t in scene.things):
        return False
    if STYLES[scene.style].has_background and not any(phrase in text for phrase in BACKGROUNDS[scene.background]):
        return False
    has_sides = "and" not in words or "on the left" in text  # "a cat and a dog" has no sides
    return has_sides or not _is_pair(scene)


def make_prompts(question: Question, domain: Domain, count: int, seed: int = 0) -> list[Prompt]:
    """Return `count` different prompts of one question, about held-out combinations of a domain."""
    world = replace(domain, galaxies=0.0, pairs=0.4, counts=0.3, empty=0.0)
    values = _balanced_values(question, domain)
    prompts: dict[str, Prompt] = {}
    index = 1_000_000 * QUESTIONS.index(question)  # no two questions use the same scene
    while len(prompts) < count:
        index += 1
        scene = sample(world, index, seed, unseen=True)
        if not question.accepts(scene):
            continue
        if question.balance_by and question.balance_by(scene) != values[len(prompts) % len(values)]:
            continue
        assert is_unseen(scene)
        rng, text = Random(f"ask {seed}/{index}"), ""
        while not is_fully_described(scene, text):
            text = caption(scene, rng)
        prompts.setdefault(text, Prompt(text, scene, index))
    return list(prompts.values())


def _balanced_values(question: Question, domain: Domain) -> Sequence[str]:
    values: dict[str, Sequence[str]] = {
        "counting": ("2", "3", "4"),
        "colors": tuple(COLORS),
        "position": ("left", "left", "above", "above", "on", "in"),  # left of, right of, above, below
        "style": tuple(domain.styles),
        "place": tuple(BACKGROUNDS),
    }
    return values.get(question.name, ())
