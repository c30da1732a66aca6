"""What a subject is, and the table of all of them."""

from collections.abc import Callable
from dataclasses import dataclass

from ..pen import Pen


@dataclass(frozen=True)
class Subject:
    """A thing with the color and place it has when a caption does not say otherwise."""

    draw: Callable[[Pen], None]
    color: str
    background: str
    plural: str
    flies: bool = False
    is_container: bool = False


SUBJECTS: dict[str, Subject] = {}


def subject(color: str, background: str, plural: str = "", flies: bool = False, is_container: bool = False):
    """Register a drawing under its function's name."""

    def register(draw: Callable[[Pen], None]) -> Callable[[Pen], None]:
        name = draw.__name__
        SUBJECTS[name] = Subject(draw, color, background, plural or f"{name}s", flies, is_container)
        return draw

    return register
