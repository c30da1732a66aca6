"""The files of a safety checker that a model brings: which they are, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..display import quote
from ..errors import ModelError
from .headers import read_header, read_json
from .links import check_links
from .remote_code import read_config
from .weights import WeightFiles, find_weights

CHECKER, PROCESSOR = "safety_checker", "feature_extractor"
CHECKER_STEM = "model"
CHECKER_FOLDERS = (CHECKER, PROCESSOR)
_CLASS = "StableDiffusionSafetyChecker"
_HINT = "fetch the whole model again, or set `no_safety_checker` to generate without it"
_MAX_SIDE = 4096  # pixels that a network looks at


@dataclass(frozen=True)
class SafetyFiles:
    """The configurations of a checker and of its image processor, and the weights in one precision."""

    folder: Path
    config: Mapping[str, Any]
    processor: Mapping[str, Any]
    weights: WeightFiles

    @property
    def paths(self) -> list[Path]:
        return [self.folder / CHECKER / name for name in self.weights.names]


def names_checker(index: Mapping[str, Any]) -> bool:
    """Whether a model_index.json names a safety checker. Models without one have [null, null]."""
    checker = index.get(CHECKER)
    return isinstance(checker, list) and any(checker)


def lacks_checker(folder: Path) -> bool:
    """Whether a model names a safety checker and has no file of it, as versions before 0.7 fetched it."""
    try:
        return names_checker(read_json(folder / "model_index.json")) and not (folder / CHECKER / "config.json").exists()
    except ModelError:
        return False


def read_checker(name: str, folder: Path, *, half: bool) -> SafetyFiles | None:
    """Describe the safety checker of the model `name`; None if it brings none.

    Raises `ModelError` for a checker that is not whole, of another class, or only there as a pickle.
    """
    if not (folder / "model_index.json").is_file():  # a one-file checkpoint brings none
        return None
    index = read_json(folder / "model_index.json")
    if not names_checker(index):
        return None
    if index[CHECKER][-1] != _CLASS:
        raise ModelError(
            f"the safety checker of {name} is a {quote(str(index[CHECKER][-1]), 60)}, expected {_CLASS}", _HINT
        )
    try:
        check_links(name, folder, CHECKER_FOLDERS)
        files = SafetyFiles(
            folder,
            read_config(folder / CHECKER / "config.json"),
            read_config(folder / PROCESSOR / "preprocessor_config.json"),
            find_weights(folder / CHECKER, CHECKER_STEM, half=half),
        )
        for path in files.paths:
            read_header(path)
    except ModelError as error:
        raise ModelError(f"the safety checker of {name} cannot be used: {error.message}", _HINT) from None
    _check_sizes(name, files)
    return files


def _check_sizes(name: str, files: SafetyFiles) -> None:
    """Check that the image processor makes what the network takes."""
    vision, crop = files.config.get("vision_config"), files.processor.get("crop_size", 224)
    taken = vision.get("image_size", 224) if isinstance(vision, dict) else None
    made = crop.get("height") if isinstance(crop, dict) else crop
    if type(taken) is not int or not 0 < taken <= _MAX_SIDE or made != taken:
        raise ModelError(
            f"the safety checker of {name} takes images of {quote(str(taken), 20)} pixels, its feature extractor "
            f"makes {quote(str(made), 20)}",
            _HINT,
        )
