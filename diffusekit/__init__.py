"""diffusekit: text to image with Stable Diffusion, and a look at how it works.

>>> import diffusekit
>>> pictures = diffusekit.generate("A beautiful galaxy", seed=7)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .embeddings import LearnedToken, load_token
    from .errors import DiffusekitError
    from .inversion.trainer import Inversion, invert
    from .metadata import Record
    from .metadata import read as read_metadata
    from .models import Model
    from .models import load as load_model
    from .pipeline import GeneratedImage, Generation, generate, stream
    from .sampling import Step, denoise
    from .schedule import SAMPLERS
    from .settings import GenerateSettings, InvertSettings

__version__ = "0.4.0"
__all__ = [
    "SAMPLERS",
    "DiffusekitError",
    "GenerateSettings",
    "GeneratedImage",
    "Generation",
    "Inversion",
    "InvertSettings",
    "LearnedToken",
    "Model",
    "Record",
    "Step",
    "denoise",
    "generate",
    "invert",
    "load_model",
    "load_token",
    "read_metadata",
    "stream",
]

_HOMES = {
    "SAMPLERS": ("schedule", "SAMPLERS"),
    "DiffusekitError": ("errors", "DiffusekitError"),
    "GenerateSettings": ("settings", "GenerateSettings"),
    "Inversion": ("inversion.trainer", "Inversion"),
    "InvertSettings": ("settings", "InvertSettings"),
    "LearnedToken": ("embeddings", "LearnedToken"),
    "Model": ("models", "Model"),
    "GeneratedImage": ("pipeline", "GeneratedImage"),
    "Record": ("metadata", "Record"),
    "Step": ("sampling", "Step"),
    "Generation": ("pipeline", "Generation"),
    "denoise": ("sampling", "denoise"),
    "generate": ("pipeline", "generate"),
    "invert": ("inversion.trainer", "invert"),
    "load_model": ("models", "load"),
    "load_token": ("embeddings", "load_token"),
    "read_metadata": ("metadata", "read"),
    "stream": ("pipeline", "stream"),
}


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first used: `import diffusekit` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'diffusekit' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(importlib.import_module(f".{module}", __name__), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
