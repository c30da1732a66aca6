"""What can be drawn: every subject is a few ellipses and polygons in the square from -1 to 1.

Galaxies are not here: they fill a picture by themselves (places.py).
"""

from . import animals, held_out, things, vehicles
from .registry import SUBJECTS, Subject

HELD_OUT = tuple(name for name, subject in SUBJECTS.items() if subject.draw.__module__ == held_out.__name__)

__all__ = ["HELD_OUT", "SUBJECTS", "Subject", "animals", "held_out", "things", "vehicles"]
