"""LoRA files: find, read, compare with a model, and apply while a network runs."""

from .adapter import LoraAdapter, LoraMatch, match_layers
from .files import find_file, list_files, list_loras, lora_folder, name_of
from .hashes import find_by_hash, hash_lora
from .selection import LoraSelection
from .weights import LoraHeader, LoraWeights, load_lora, read_lora_header

__all__ = [
    "LoraAdapter",
    "LoraHeader",
    "LoraMatch",
    "LoraSelection",
    "LoraWeights",
    "find_by_hash",
    "find_file",
    "hash_lora",
    "list_files",
    "list_loras",
    "load_lora",
    "lora_folder",
    "match_layers",
    "name_of",
    "read_lora_header",
]
