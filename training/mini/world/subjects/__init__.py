"""The subjects of the world. Each is drawn with a few ellipses and polygons in the square from -1 to 1.

Galaxies fill the whole image and are painted in `backgrounds.py`.
"""

from . import animals, held_out, things, vehicles
from .registry import SUBJECTS, Subject

HELD_OUT = tuple(name for name, subject in SUBJECTS.items() if subject.draw.__module__ == held_out.__name__)

__all__ = ["HELD_OUT", "SUBJECTS", "Subject", "animals", "held_out", "things", "vehicles"]
