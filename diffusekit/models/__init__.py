"""Load a base model by name: describe its folder, build its networks, merge its few-step LoRA."""

from ..hub import FAST_LORA, MINI, installed, locate
from .build import load, load_text, resolve
from .model import Model, ModelInfo, TextModel, describe, fingerprint, token_ids

__all__ = [
    "FAST_LORA",
    "MINI",
    "Model",
    "ModelInfo",
    "TextModel",
    "describe",
    "fingerprint",
    "installed",
    "load",
    "load_text",
    "locate",
    "resolve",
    "token_ids",
]
