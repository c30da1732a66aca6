"""How an image was made: complete settings, the model's revision, device and versions."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from ..settings import GenerateSettings

if TYPE_CHECKING:
    from ..device import Placement

_PACKAGES = ("diffusekit", "torch", "diffusers", "transformers")


class Record(BaseModel):
    """How one image was made. Its JSON is what `save` writes, so fields are never renamed."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = 1
    settings: GenerateSettings
    revision: str = ""
    model_hash: str = ""  # SHA-256 of a local model's files; a model of the hub has a revision
    vae_hash: str = ""  # SHA-256 of the file of a VAE in place of the model's own
    device: str = ""
    dtype: str = ""
    versions: dict[str, str] = {}
    embeddings: dict[str, str] = {}  # SHA-256 of the files of learned tokens, by name
    loras: dict[str, str] = {}  # SHA-256 of the tensors of LoRA files, by name, as A1111 computes it
    start_image: str = ""  # SHA-256 of the size and pixels of the image that it was made from
    mask: str = ""  # SHA-256 of the size and gray values of the mask
    safety_checker: str = ""  # "passed", or "off" for no_safety_checker; "" for a model that brings none
    axes: dict[str, tuple[str, ...]] = {}  # of a grid of images: the settings that vary, and their labels
    shortened: tuple[str, ...] = ()  # settings that were too long for the file, which end in an ellipsis

    @property
    def repeated(self) -> GenerateSettings:
        """The settings that make the image again with this version.

        Until 0.6 a guidance scale of 0 meant the negative prompt alone. Now it is off, and no new record has it. The
        same image is that of the negative prompt as the prompt, without guidance.
        """
        own = self.settings
        if own.guidance_scale != 0:
            return own
        return own.model_copy(update={"prompt": own.negative_prompt, "negative_prompt": "", "guidance_scale": 1.0})

    @classmethod
    def create(
        cls,
        settings: GenerateSettings,
        revision: str,
        placement: Placement,
        embeddings: dict[str, str] | None = None,
        *,
        model_hash: str = "",
        vae_hash: str = "",
        start_image: str = "",
        mask: str = "",
        safety_checker: str = "",
        loras: dict[str, str] | None = None,
    ) -> Record:
        """Make a record for this machine and the installed versions."""
        versions = {name: _installed_version(name) for name in _PACKAGES} | {"python": platform.python_version()}
        return cls(
            settings=settings,
            revision=revision,
            model_hash=model_hash,
            vae_hash=vae_hash,
            start_image=start_image,
            mask=mask,
            safety_checker=safety_checker,
            device=str(placement.device),
            dtype=placement.dtype_name,
            versions=versions,
            embeddings=embeddings or {},
            loras=loras or {},
        )


def _installed_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
