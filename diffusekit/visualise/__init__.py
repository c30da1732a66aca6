"""See how a diffusion model works: forward and reverse process, attention, tokens, samplers, and a lesson.

The functions `noise`, `denoise`, `attention`, `compare`, `tokens`, `samplers` and `lesson` return a `Visualization`,
which draws only when it is saved or displayed. Recorders iterate over the `Step`s of a generation, and the `render`
function of each module shows what was recorded. None of them changes an image.
"""

from .attention_maps import AttentionMapRecorder, AttentionMaps, attention, record_attention_maps
from .compare import ComparisonRecorder, compare
from .figure import Visualization
from .forward import noise
from .lesson import lesson
from .reverse import denoise
from .samplers import SamplerRecorder, samplers
from .tokens import tokens
from .trace import Trace, TraceRecorder, TraceStep, record_trace

__all__ = [
    "AttentionMapRecorder",
    "AttentionMaps",
    "ComparisonRecorder",
    "SamplerRecorder",
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
