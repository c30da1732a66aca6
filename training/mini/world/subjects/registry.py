"""The table of all subjects."""

from collections.abc import Callable
from dataclasses import dataclass

from ..pen import Pen


@dataclass(frozen=True)
class Subject:
    """How to draw a thing, and the color and background that it has unless the caption names others."""

    draw: Callable[[Pen], None]
    color: str
    background: str
    plural: str
    flies: bool = False
    is_container: bool = False


# A new subject changes what the shipped model was trained with, in two ways:
# - `scenes.sample` chooses from this list by number, so every scene of every seed becomes another one;
# - the frozen tokenizer of `mini` has no token for the new word and reads it letter by letter.
# Add one only when everything is trained again, from the tokenizer on.
SUBJECTS: dict[str, Subject] = {}


def subject(color: str, background: str, plural: str = "", flies: bool = False, is_container: bool = False):
    """Register a drawing under the name of its function."""

    def register(draw: Callable[[Pen], None]) -> Callable[[Pen], None]:
        name = draw.__name__
        SUBJECTS[name] = Subject(draw, color, background, plural or f"{name}s", flies, is_container)
        return draw

    return register
