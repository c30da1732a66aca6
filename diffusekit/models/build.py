"""Build the networks of a model from its folder.

Only safetensors are read, and only classes named here are made. Nothing in a model's folder is run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from .. import hub
from ..device import Placement, choose
from ..display import first_line
from ..errors import ModelError, OutOfMemory, UsageError
from .lora import merge_lora
from .model import Model, TextModel

# Loading patches torch for the whole process to make empty networks, and two callers of one model share it.
_LOADING = Lock()


def load(name: str = "mini", device: str = "auto", dtype: str = "auto", *, fast: bool = False) -> Model:
    """Load a model by name, with its few-step LoRA if `fast`. The last model stays in memory and is shared.

    Raises `ModelError` when it is missing, damaged, unsafe, unknown or cannot be reached, and `OutOfMemory`.
    """
    placement = choose(device, dtype)
    with _LOADING:
        return _load(name, placement, fast)


def load_text(name: str = "mini") -> TextModel:
    """Load only tokenizers and text encoders, on the CPU in float32, apart from the models that `load` shares.

    The last two stay in memory. Raises `ModelError` as `load` does.
    """
    with _LOADING:
        return _load_text(name)


@lru_cache(maxsize=1)
def _load(name: str, placement: Placement, fast: bool) -> Model:
    folder, revision = _prepare(name)
    if fast and not (folder / hub.FAST_LORA).is_file():
        raise ModelError(
            f"the model {name} has no few-step LoRA",
            "leave out `fast`; for a distilled model set `steps` to 4 and `guidance_scale` to 1",
        )
    with _loading_errors(name, placement):
        # diffusers first: it imports the parts of transformers that it needs, in less time than the other way round
        unet, vae = _unet(folder, placement, fast=fast), _vae(folder, placement)
        tokenizers, text_encoders = _text_parts(folder, placement)
        config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        return Model(name, folder, revision, placement, tokenizers, text_encoders, unet, vae, config, fast)


def resolve(model: str | Model, device: str = "auto", dtype: str = "auto", *, fast: bool = False) -> Model:
    """Return a loaded model as it is, and load one that is given by its name.

    Raises `UsageError` for a device, precision or few-step LoRA that a loaded model does not have.
    """
    if isinstance(model, str):
        return load(model, device, dtype, fast=fast)
    for name, is_given in (("device", device != "auto"), ("dtype", dtype != "auto"), ("fast", fast)):
        if is_given:
            raise UsageError(f"`{name}` is decided when a model is loaded", f"give `{name}` to load_model instead")
    return model


@lru_cache(maxsize=2)
def _load_text(name: str) -> TextModel:
    folder, revision = _prepare(name)
    placement = choose("cpu", "float32")
    with _loading_errors(name, placement):
        return TextModel(name, folder, revision, placement, *_text_parts(folder, placement))


def _prepare(name: str) -> tuple[Path, str]:
    """Find a model and make sure that none of its code can run."""
    os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder, revision = hub.locate(name)
    hub.verify(name, folder)
    return folder, revision


@contextmanager
def _loading_errors(name: str, placement: Placement) -> Iterator[None]:
    """Turn whatever the libraries raise into `ModelError` or `OutOfMemory`."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # diffusers, transformers and safetensors share no error type
        if "out of memory" in str(error).lower():
            raise OutOfMemory(
                f"the model {name} does not fit on {placement.device}",
                "set `dtype` to float16, or `device` to cpu",
            ) from error
        raise ModelError(
            f"the model {name} could not be loaded: {first_line(error)}", "fetch or convert it again"
        ) from error


def _text_parts(folder: Path, placement: Placement) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    return (tokenizer,), (_network(CLIPTextModel, folder / "text_encoder", placement),)


def _unet(folder: Path, placement: Placement, *, fast: bool) -> Any:
    import torch
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    unet = _network(UNet2DConditionModel, folder / "unet", placement)
    if fast:
        merge_lora(unet, folder / hub.FAST_LORA)
    return unet.to(memory_format=torch.channels_last) if placement.device.type == "cuda" else unet


def _vae(folder: Path, placement: Placement) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    vae = _network(AutoencoderKL, folder / "vae", placement)
    return vae.float() if vae.config.get("force_upcast") else vae


def _network(network: Any, folder: Path, placement: Placement) -> Any:
    """Load one network from its folder, frozen, on its device."""
    loaded = network.from_pretrained(
        folder,
        use_safetensors=True,
        variant=hub.weight_variant(folder, half=placement.dtype_name != "float32"),
        torch_dtype=placement.dtype,
        local_files_only=True,
    )
    return loaded.eval().requires_grad_(False).to(placement.device)
