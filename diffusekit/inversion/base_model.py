"""The frozen model of a run, with the device and precision that training chooses."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from .. import models
from ..device import choose as choose_device
from ..errors import UsageError
from ..settings import InvertSettings


def load(settings: InvertSettings, accelerator: Accelerator) -> tuple[InvertSettings, models.Model]:
    """Fill in device, precision and validation prompt, and load the model.

    Raises `UsageError` for a model that no token can be learned with: one for inpainting, or a distilled one.
    """
    _check_kind(settings.model)
    device = str(accelerator.device) if accelerator.num_processes > 1 else settings.device
    chosen, dtype = choose_device(device).device, settings.dtype
    if dtype == "auto":
        # bfloat16 has float32's range: gradients do not vanish in it as in float16
        has_bfloat16 = chosen.type == "xpu" or (chosen.type == "cuda" and torch.cuda.is_bf16_supported())
        dtype = "bfloat16" if has_bfloat16 else "float32"
    prompt = (settings.preview or "a picture of {}").replace("{}", settings.token)
    complete = settings.model_copy(update={"device": str(chosen), "dtype": dtype, "preview": prompt})
    model = models.load_for(complete)
    if model.is_guidance_distilled:  # its U-Net was trained with a guidance scale as an input, which the loss has not
        raise UsageError(
            f"the model {model.name} is guidance-distilled, and no token can be learned with it",
            "learn the token with the model that it was distilled from",
        )
    return complete, model


def _check_kind(name: str) -> None:
    """Raise `UsageError` for a kind of model that no token can be learned with, before its weights are loaded."""
    described = models.describe(name)
    if described.task == "inpainting":
        raise UsageError(
            f"{described.name} is a model for inpainting, which is trained with masks, and no token is learned with it",
            f"learn the token with a {described.family.label} model that is not for inpainting; it works in both",
        )
