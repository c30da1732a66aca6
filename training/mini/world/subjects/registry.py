"""What a subject is, and the table of all of them."""

from collections.abc import Callable
from dataclasses import dataclass

from ..pen import Pen


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
