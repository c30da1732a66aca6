"""Looking at diffusion: how noise is added, how it is taken away, and which word drew what.

Every function is a consumer of Steps and returns an `Exhibit`: pictures, a film and the numbers, made
when they are saved or looked at. Nothing here changes a picture.
"""

from .attention_maps import Heat, attention, watch
from .compare import compare
from .figure import Exhibit
from .forward import noise
from .lesson import page
from .reverse import denoise
from .samplers import samplers
from .tokens import tokens
from .trace import Moment, Recording, Trace, record

__all__ = [
    "Exhibit",
    "Heat",
    "Moment",
    "Recording",
    "Trace",
    "attention",
    "compare",
    "denoise",
    "noise",
    "page",
    "record",
    "samplers",
    "tokens",
    "watch",
]
