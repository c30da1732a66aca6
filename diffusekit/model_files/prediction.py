"""What the U-Net of a one-file checkpoint predicts, as far as the file says: noise (epsilon) or velocity (v)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .families import SD2, Family, Task

PredictionType = Literal["epsilon", "v_prediction", "sample"]
_WORDS: dict[str, PredictionType] = {
    "epsilon": "epsilon",
    "eps": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
    "v-prediction": "v_prediction",
}
_MARKERS = ("v_pred", "ztsnr")  # empty tensors that ComfyUI and its trainers know
_IN_NAME = re.compile(r"v[ _-]?pred|768[ _-]?v(?![a-z])|parameterization[ _-]v", re.IGNORECASE)
_EPSILON_IN_NAME = re.compile(r"512[ _-]?(base|ema|inpainting)|2[ _.-]?[01][ _-]base", re.IGNORECASE)
_SIDECAR = re.compile(r"""^\s*parameterization:\s*["']?(v|eps)\b""", re.MULTILINE)
_MAX_SIDECAR = 2**20  # bytes


@dataclass(frozen=True)
class Prediction:
    """The prediction type of a file. `assumption` says in a sentence what was assumed, "" if the file says it."""

    type: PredictionType
    has_zero_terminal_snr: bool = False
    assumption: str = ""


def find_prediction(
    path: Path, family: Family, task: Task, names: Mapping[str, object], metadata: Mapping[str, str]
) -> Prediction:
    """Return what a file's U-Net predicts. In this order, the first that says it counts:

    the metadata `modelspec.prediction_type`; tensors named `v_pred` and `ztsnr`; a file of the same name that ends in
    .yaml and has A1111's `parameterization`; the metadata `modelspec.architecture`; the file's name, which is an
    assumption; and the family. Files of 2.x without any of these are assumed to predict velocity, as diffusers
    assumes.
    """
    zero = "ztsnr" in names
    if known := _WORDS.get(str(metadata.get("modelspec.prediction_type", "")).lower()):
        return Prediction(known, zero)
    if any(marker in names for marker in _MARKERS):
        return Prediction("v_prediction", zero)
    if found := _read_sidecar(path):
        return Prediction(found)
    architecture = str(metadata.get("modelspec.architecture", "")).lower()
    if architecture.startswith("stable-diffusion-v2"):
        return Prediction("v_prediction" if "768-v" in architecture else "epsilon")
    if _IN_NAME.search(path.stem):
        return Prediction("v_prediction", assumption=_assume(path, "v_prediction", "by its name"))
    if family is not SD2 or task == "inpainting":
        return Prediction("epsilon")
    if _EPSILON_IN_NAME.search(path.stem):
        return Prediction("epsilon", assumption=_assume(path, "epsilon", "by its name"))
    return Prediction("v_prediction", assumption=_assume(path, "v_prediction", "as for most of Stable Diffusion 2.x"))


def _assume(path: Path, kind: PredictionType, why: str) -> str:
    other = "epsilon" if kind == "v_prediction" else "v_prediction"
    return (
        f"{path.name} does not say what its U-Net predicts: {kind} is assumed, {why}; if images are noise, set "
        f"`prediction_type` to {other}"
    )


def _read_sidecar(path: Path) -> PredictionType | None:
    """Read A1111's configuration beside a file. It is searched as text, never evaluated."""
    for ending in (".yaml", ".yml"):
        sidecar = path.with_suffix(ending)
        try:
            if sidecar.is_file() and sidecar.stat().st_size <= _MAX_SIDECAR:
                found = _SIDECAR.search(sidecar.read_text(encoding="utf-8", errors="replace"))
                # without the line, A1111's configurations mean epsilon
                return _WORDS[found[1]] if found else "epsilon"
        except OSError:
            continue
    return None
