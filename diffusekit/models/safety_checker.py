"""The safety checker that a model brings: it flags images, which are then not written.

The network is diffusers' `StableDiffusionSafetyChecker` with CLIP's image processor, so it decides as in its pipelines.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from ..device import Placement
from ..display import first_line, quote
from ..errors import ModelError
from ..model_files import SafetyFiles, read_checker

_HINT = "fetch the whole model again, or set `no_safety_checker` to generate without it"


class SafetyChecker:
    """The checker of one model. Its weights are loaded when the first image is checked, in the model's precision."""

    def __init__(self, name: str, files: SafetyFiles, placement: Placement):
        self._name, self._files, self._placement = name, files, placement

    @classmethod
    def find(cls, name: str, folder: Path, placement: Placement) -> SafetyChecker | None:
        """Return the checker of a model's folder; None if it brings none.

        Raises `ModelError` for one whose files cannot be used, before any image is made.
        """
        files = read_checker(name, folder, half=placement.is_half)
        return None if files is None else cls(name, files, placement)

    def flag(self, pictures: Sequence[Image.Image]) -> list[bool]:
        """Say for each image whether it shows what the checker looks for."""
        import numpy as np

        network, processor = self._loaded
        with _errors(self._name), _silence():
            pixels = processor([picture.convert("RGB") for picture in pictures], return_tensors="pt").pixel_values
            # What is flagged is made black in `images`, which is not used here.
            _, flags = network(
                clip_input=pixels.to(self._placement.device, self._placement.dtype),
                images=[np.zeros(1) for _ in pictures],
            )
        return [bool(flag) for flag in flags]

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """The network and the image processor."""
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
        from safetensors.torch import load_file
        from transformers import CLIPConfig

        with _errors(self._name), _silence():
            from transformers import CLIPImageProcessor

            tensors: dict[str, Any] = {}
            for path in self._files.paths:
                tensors |= load_file(path)
            network_class: Any = StableDiffusionSafetyChecker
            network, report = network_class.from_pretrained(
                None,
                config=CLIPConfig.from_dict(dict(self._files.config)),
                state_dict=tensors,
                dtype=self._placement.dtype,
                output_loading_info=True,
            )
            processor = CLIPImageProcessor.from_dict(dict(self._files.processor))
        if missing := sorted(report["missing_keys"]):
            raise ModelError(
                f"the weights of the safety checker of {self._name} do not fit its config.json: {len(missing)} "
                f"tensors are missing, the first is {quote(missing[0])}",
                _HINT,
            )
        return network.eval().requires_grad_(False).to(self._placement.device), processor


@contextmanager
def _errors(name: str) -> Iterator[None]:
    """Turn what the libraries raise about damaged files into `ModelError`. Running out of memory stays what it is."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        if "out of memory" in str(error).lower():
            raise
        raise ModelError(f"the safety checker of {name} cannot be used: {first_line(error)}", _HINT) from error


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the libraries' lines from stderr: what is flagged is said by the pipeline."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
