"""Load a base model by name: describe its folder, build its networks, merge its few-step LoRA."""

from ..hub import FAST_LORA, MINI, Location, installed, locate, record_name
from .build import LoadRequest, list_loaded, load, load_for, load_text, plan_memory, resolve, resolve_for
from .identity import find_by_hash, hash_model
from .memory import MemoryPlan
from .model import Model, ModelInfo, TextModel, describe, fingerprint, token_ids

__all__ = [
    "FAST_LORA",
    "MINI",
    "LoadRequest",
    "Location",
    "MemoryPlan",
    "Model",
    "ModelInfo",
    "TextModel",
    "describe",
    "find_by_hash",
    "fingerprint",
    "hash_model",
    "installed",
    "list_loaded",
    "load",
    "load_for",
    "load_text",
    "locate",
    "plan_memory",
    "record_name",
    "resolve",
    "resolve_for",
    "token_ids",
]
