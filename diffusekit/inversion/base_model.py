"""The frozen model of a run, with the device and precision that training chooses."""

from __future__ import annotations

import logging

import torch
from accelerate import Accelerator

from .. import models
from ..device import choose as choose_device
from ..errors import OutOfMemory, UsageError
from ..settings import InvertSettings

log = logging.getLogger(__name__)


def load(settings: InvertSettings, accelerator: Accelerator) -> tuple[InvertSettings, models.Model]:
    """Fill in device, precision and validation prompt, and load the model.

    Raises `UsageError` for a model that no token can be learned with: one for inpainting, or a distilled one.
    Raises `OutOfMemory` for one that fits only in parts.
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
    if model.plan is not None and model.plan.offload != "none":
        raise OutOfMemory(
            f"learning keeps the whole model {model.name} on {model.placement.device}, where it does not fit",
            "set `device` to cpu, or learn with a smaller model",
        )
    return complete, model


def _check_kind(name: str) -> None:
    """Raise `UsageError` for a kind of model that no token can be learned with, before its weights are loaded.

    The loss is that of a U-Net which predicts at any noise level, without a mask and without a guidance scale as an
    input. A merge of such a U-Net with one of few steps is warned of.
    """
    described = models.describe(name)
    label, kind = described.family.label, described.defaults.kind
    if described.task == "inpainting":
        raise UsageError(
            f"{described.name} is a model for inpainting, which is trained with masks, and no token is learned with it",
            f"learn the token with a {label} model that is not for inpainting; it works in both",
        )
    if not kind:
        return
    reason = f"{described.name} is {kind} ({described.defaults.reason})"
    if kind.startswith("a merge"):
        log.warning("%s, which learns worse; learn the token with a plain %s model, it works in both", reason, label)
        return
    raise UsageError(
        f"{reason}: it was distilled for few steps, and no token is learned with it",
        f"learn the token with the {label} model that it was distilled from; it works in both",
    )
