"""A VAE in place of a model's own: found by its name, checked against the model, loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import hub
from ..device import Placement
from ..errors import ModelError
from ..model_files import ModelFile, ModelFolder, VaeFiles, find_vae
from . import tensors


@dataclass(frozen=True)
class OwnVae:
    """The VAE that a user named: `path` is its file, which a record's hash belongs to."""

    path: Path
    files: VaeFiles


def describe_vae(name: str | None, model: ModelFolder | ModelFile) -> OwnVae | None:
    """Describe the VAE `name`, a path or a hub id, and check that it suits a model. None is the model's own.

    Raises `ModelError`, also when no VAE is named and the model has none.
    """
    if not name:
        if isinstance(model, ModelFile) and not model.has_vae:
            raise ModelError(f"{model.path} has no VAE", "give one with `vae`")
        return None
    files = find_vae(hub.locate_vae(name), model)
    return OwnVae(files.weights[-1], files)


def load_vae(files: VaeFiles, placement: Placement) -> Any:
    """Load a VAE, frozen, on its device."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    network = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}[files.network]
    vae = tensors.build(network, files.config, tensors.read_vae(files), placement.dtype, f"the VAE {files.name}")
    vae = vae.to(placement.device)
    return vae.float() if vae.config.get("force_upcast") else vae
