"""Load a base model by name: describe its folder, build its networks, merge its few-step LoRA."""

from ..hub import FAST_LORA, MINI, Location, installed, locate, record_name
from .build import LoadRequest, load, load_for, load_text, resolve
from .identity import find_by_hash, hash_model
from .model import Model, ModelInfo, TextModel, describe, fingerprint, token_ids

__all__ = [
    "FAST_LORA",
    "MINI",
    "LoadRequest",
    "Location",
    "Model",
    "ModelInfo",
    "TextModel",
    "describe",
    "find_by_hash",
    "fingerprint",
    "hash_model",
    "installed",
    "load",
    "load_for",
    "load_text",
    "locate",
    "record_name",
    "resolve",
    "token_ids",
]
