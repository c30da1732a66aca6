"""Looking at diffusion: how noise is added, how it is taken away, and which word drew what.

Every function is a consumer of Steps and returns an `Exhibit`: pictures, a film and the numbers, made
when they are saved or looked at. Nothing here changes a picture.
"""

from .attention_maps import AttentionMaps, attention, record_attention_maps
from .compare import compare
from .figure import Visualization
from .forward import noise
from .lesson import lesson
from .reverse import denoise
from .samplers import samplers
from .tokens import tokens
from .trace import Trace, TraceRecorder, TraceStep, record_trace

__all__ = [
    "AttentionMaps",
    "Trace",
    "TraceRecorder",
    "TraceStep",
    "Visualization",
    "attention",
    "compare",
    "denoise",
    "lesson",
    "noise",
    "record_attention_maps",
    "record_trace",
    "samplers",
    "tokens",
]
