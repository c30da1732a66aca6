"""diffusekit: text to image with Stable Diffusion, and a look at how it works.

>>> import diffusekit
>>> images = diffusekit.generate("A beautiful galaxy", seed=7)
"""

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:
    from . import metadata, models
    from . import visualise as visualise
    from .embeddings import LearnedToken as LearnedToken
    from .embeddings import load_token as load_token
    from .errors import DiffusekitError as DiffusekitError
    from .inversion.trainer import Inversion as Inversion
    from .inversion.trainer import invert as invert
    from .metadata import ImageMetadata as ImageMetadata
    from .metadata import Record as Record
    from .models import Model as Model
    from .pipeline import GeneratedImage as GeneratedImage
    from .pipeline import Generation as Generation
    from .pipeline import generate as generate
    from .pipeline import stream as stream
    from .sampling import Step as Step
    from .sampling import denoise as denoise
    from .schedule import SAMPLERS as SAMPLERS
    from .settings import GenerateSettings as GenerateSettings
    from .settings import InvertSettings as InvertSettings

    load_model = models.load
    read_metadata = metadata.read

# The public names and where each is defined: `module:name`, or `module` for a module.
_HOMES = {
    "DiffusekitError": "errors:DiffusekitError",
    "GenerateSettings": "settings:GenerateSettings",
    "GeneratedImage": "pipeline:GeneratedImage",
    "Generation": "pipeline:Generation",
    "ImageMetadata": "metadata:ImageMetadata",
    "Inversion": "inversion.trainer:Inversion",
    "InvertSettings": "settings:InvertSettings",
    "LearnedToken": "embeddings:LearnedToken",
    "Model": "models:Model",
    "Record": "metadata:Record",
    "SAMPLERS": "schedule:SAMPLERS",
    "Step": "sampling:Step",
    "denoise": "sampling:denoise",
    "generate": "pipeline:generate",
    "invert": "inversion.trainer:invert",
    "load_model": "models:load",
    "load_token": "embeddings:load_token",
    "read_metadata": "metadata:read",
    "stream": "pipeline:stream",
    "visualise": "visualise",
}
__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `import diffusekit` itself costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'diffusekit' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value = importlib.import_module(f".{module}", __name__)
    if attribute:
        value = getattr(value, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
