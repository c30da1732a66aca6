"""Read what the files of a model say, without its weights: JSON, headers of safetensors, names of files.

Nothing here imports torch, opens a pickle or runs anything.
"""

from .distillation import SamplingDefaults, find_lora_defaults
from .families import FAMILIES, EncoderPart, Family, Task
from .folder import ModelFolder, describe_class, read_folder
from .headers import TensorHeader, read_header, read_json
from .kinds import refuse
from .weights import WeightFiles, choose_weights, find_weights, stem_of

__all__ = [
    "FAMILIES",
    "EncoderPart",
    "Family",
    "ModelFolder",
    "SamplingDefaults",
    "Task",
    "TensorHeader",
    "WeightFiles",
    "choose_weights",
    "describe_class",
    "find_lora_defaults",
    "find_weights",
    "read_folder",
    "read_header",
    "read_json",
    "refuse",
    "stem_of",
]
