"""Read what the files of a model say, without its weights: JSON, headers of safetensors, names of files.

Nothing here imports torch, opens a pickle or runs anything.
"""

from pathlib import Path

from .description import Description, PartDescription
from .distillation import SamplingDefaults, find_lora_defaults
from .families import FAMILIES, EncoderPart, Family, Task
from .file_description import describe_file
from .folder import ModelFolder, describe_class, read_folder
from .folder_description import describe_folder
from .headers import TensorHeader, read_header, read_json
from .kinds import refuse
from .weights import WeightFiles, choose_weights, find_weights, stem_of

__all__ = [
    "FAMILIES",
    "Description",
    "EncoderPart",
    "Family",
    "ModelFolder",
    "PartDescription",
    "SamplingDefaults",
    "Task",
    "TensorHeader",
    "WeightFiles",
    "choose_weights",
    "describe",
    "describe_class",
    "describe_file",
    "describe_folder",
    "find_lora_defaults",
    "find_weights",
    "read_folder",
    "read_header",
    "read_json",
    "refuse",
    "stem_of",
]


def describe(name: str, path: Path) -> Description:
    """Describe the model `name` that lies at `path`: a folder in diffusers layout, or one file.

    Reads JSON and headers only. Raises nothing: what cannot be loaded has a `problem` and a `hint`.
    """
    return describe_folder(name, path) if path.is_dir() else describe_file(name, path)
