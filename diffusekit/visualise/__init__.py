"""Looking at diffusion: how noise is added, how it is taken away, and which word drew what.

Every function is a consumer of Steps and returns an `Exhibit`: pictures, a film and the numbers, made
when they are saved or looked at. Nothing here changes a picture.
"""

from .denoising import denoise
from .exhibit import Exhibit
from .heat import Heat, attention, watch
from .lesson import page
from .lockstep import compare
from .noising import noise
from .reading import tokens
from .samplers import samplers
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
