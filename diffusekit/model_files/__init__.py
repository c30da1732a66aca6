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
from .one_file import ModelFile, read_file, read_model
from .safety_files import CHECKER_FOLDERS, SafetyFiles, lacks_checker, names_checker, read_checker
from .vae_files import VaeFiles, find_vae
from .weights import WeightFiles, choose_weights, find_weights, stem_of

CLIP_VOCABULARY = Path(__file__).with_name("clip")  # vocab.json and merges.txt of every family

__all__ = [
    "CHECKER_FOLDERS",
    "CLIP_VOCABULARY",
    "FAMILIES",
    "Description",
    "EncoderPart",
    "Family",
    "ModelFile",
    "ModelFolder",
    "PartDescription",
    "SafetyFiles",
    "SamplingDefaults",
    "Task",
    "TensorHeader",
    "VaeFiles",
    "WeightFiles",
    "choose_weights",
    "describe",
    "describe_class",
    "describe_file",
    "describe_folder",
    "find_lora_defaults",
    "find_vae",
    "find_weights",
    "lacks_checker",
    "names_checker",
    "read_checker",
    "read_file",
    "read_folder",
    "read_header",
    "read_json",
    "read_model",
    "refuse",
    "stem_of",
]


def describe(name: str, path: Path) -> Description:
    """Describe the model `name` that lies at `path`: a folder in diffusers layout, or one file.

    Reads JSON and headers only. Raises nothing: what cannot be loaded has a `problem` and a `hint`.
    """
    return describe_folder(name, path) if path.is_dir() else describe_file(name, path)
