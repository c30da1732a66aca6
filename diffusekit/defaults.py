"""Settings that are not given become those that suit the model, and what was chosen is said."""

from __future__ import annotations

import math
import secrets
from typing import Any

from . import schedule
from .canvas import ImageCanvas
from .model_files import SamplingDefaults
from .models import Model
from .settings import GenerateSettings

DEFAULT_STRENGTH = 0.6
MASK_STRENGTH = 1.0


def complete(
    settings: GenerateSettings,
    model: Model,
    canvas: ImageCanvas | None = None,
    *,
    lora: SamplingDefaults | None = None,
) -> GenerateSettings:
    """Fill in every `None`, so that the record says what really happened. A guidance scale of 0 becomes 1: off.

    `lora` is what a LoRA for few steps asks for. From an image, a model of few steps takes as many of them as without
    one.
    """
    width, height = canvas.size if canvas else (model.native_size, model.native_size)
    suited = lora or model.defaults
    spacing = (model.scheduler_config | dict(suited.scheduler)).get("timestep_spacing")
    usual = MASK_STRENGTH if canvas and canvas.mask else DEFAULT_STRENGTH
    strength = (settings.strength or usual) if canvas else None
    defaults: dict[str, Any] = {
        "seed": secrets.randbelow(2**32),
        "steps": math.ceil(suited.steps / strength - 1e-6) if suited.kind and strength else suited.steps,
        "sampler": suited.sampler,
        "spacing": spacing if spacing in schedule.SPACINGS else None,
        "guidance_scale": suited.guidance_scale,
        "width": width,
        "height": height,
        "strength": strength,
    }
    values = {name: value for name, value in defaults.items() if getattr(settings, name) is None}
    if settings.guidance_scale == 0:
        values["guidance_scale"] = 1.0
    return settings.model_copy(update=values)


def noise_config(settings: GenerateSettings, model: Model) -> dict[str, Any]:
    """Return the noise schedule of a model with the spacing of complete settings."""
    return model.scheduler_config | ({"timestep_spacing": settings.spacing} if settings.spacing else {})


def explain(
    given: GenerateSettings, complete: GenerateSettings, model: Model, *, lora: SamplingDefaults | None = None
) -> list[str]:
    """Say which settings a model or LoRA for few steps decided and how it was recognized, because that can be wrong."""
    suited, sentences = lora or model.defaults, []
    subject = f"{model.name} with a LoRA" if lora else model.name
    if given.spacing and not schedule.uses_spacing(complete.sampler or ""):
        sentences.append(f"`spacing` has no effect with the sampler {complete.sampler}")
    names = [name for name in ("steps", "sampler", "guidance_scale") if getattr(given, name) is None]
    if given.spacing is None and "timestep_spacing" in dict(suited.scheduler):
        names.append("spacing")
    if suited.kind and names:
        chosen = ", ".join(f"`{name}` {_format(getattr(complete, name))}" for name in names)
        sentences.append(f"{subject} is {suited.kind} ({suited.reason}), so these are used: {chosen}")
    elif suited.doubt and names:
        sentences.append(
            f"{model.name} may be a model of few steps ({suited.doubt}); if it is one, set `steps` to 4 and "
            "`guidance_scale` to 1"
        )
    return sentences


def _format(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
