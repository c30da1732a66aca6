"""Convert a model: a folder in diffusers layout to a one-file checkpoint and back, in half or full precision."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from .. import hub, large_files
from ..errors import ModelError, UsageError
from ..model_files import ModelFile, ModelFolder, read_model, stem_of
from ..model_files.folder import native_size
from ..model_files.original_layout import ENDINGS, derive_configs, read_template
from ..model_files.prediction import PredictionType
from .original_names import to_original
from .tensors import Tensors, read_part, tokenizer_files
from .weights_writer import DTYPES, Progress, Shapes, count_bytes, write_weights

log = logging.getLogger(__name__)
Files = ModelFolder | ModelFile
Precision = Literal["float16", "bfloat16", "float32"]
_EXTRA = ("safety_checker", "feature_extractor", "image_encoder")
# What a file does not say, and what its family has instead.
_UNSAID = ("attention_head_dim", "num_attention_heads", "scaling_factor", "hidden_act", "layer_norm_eps", "norm_eps")
_TRAINED = ("beta_start", "beta_end", "beta_schedule", "timestep_spacing", "num_train_timesteps")
_ARCHITECTURES = {"sd1": "stable-diffusion-v1", "sdxl": "stable-diffusion-xl-v1-base"}
_ARCHITECTURES |= {"sd2-epsilon": "stable-diffusion-v2-512", "sd2-v_prediction": "stable-diffusion-v2-768-v"}


def convert(
    source: str,
    target: Path,
    *,
    dtype: Precision | None = None,
    ema: bool = False,
    prediction_type: PredictionType | None = None,
    overwrite: bool = False,
    on_progress: Progress = lambda count: None,
    on_size: Progress = lambda count: None,
) -> Path:
    """Write the model `source` to `target`: a name that ends in .safetensors is one file, any other is a folder.

    Without `dtype`, every tensor keeps its precision. `ema` takes the averaged weights of training, which only a file
    can have. `on_size` is told the number of bytes, and `on_progress` how many more were written. What exists is kept
    unless `overwrite`, and nothing is at `target` before all of it is written and read again.
    Raises `ModelError`, `UsageError` and `DiskError`.
    """
    place = hub.locate(source)
    files = read_model(place.name, place.folder, prediction_type=prediction_type)
    _check_target(files, target, overwrite=overwrite, ema=ema)
    if isinstance(files, ModelFile) and not files.has_vae:
        raise ModelError(f"{files.path} has no VAE", "only a whole model can be converted")
    if isinstance(files, ModelFile) and files.assumption:
        log.warning("%s", files.assumption)
    torch_dtype = getattr(torch, dtype) if dtype else None
    plan = {part: _list_shapes(_open(files, part, torch_dtype, ema=ema), torch_dtype) for part in files.family.networks}
    schedule = dict(files.configs["scheduler"]) | ({"prediction_type": prediction_type} if prediction_type else {})
    size = sum(map(count_bytes, plan.values()))
    large_files.check_space(target, size)
    on_size(size)
    with large_files.replace_path(target, overwrite=overwrite) as path:
        if target.suffix.lower() in ENDINGS:
            _write_file(files, path, torch_dtype, schedule, ema=ema, on_progress=on_progress)
        else:
            _write_folder(files, path, plan, torch_dtype, schedule, ema=ema, on_progress=on_progress)
        read_model(files.name, path)
    return target


def _check_target(files: Files, target: Path, *, overwrite: bool, ema: bool) -> None:
    large_files.check_new(target, overwrite=overwrite)
    if target.suffix.lower() in (".ckpt", ".pt", ".pth", ".bin"):
        raise UsageError(
            f"{target.name} would be a pickle, which is not written", "use a name that ends in .safetensors"
        )
    if target.exists() and target.is_dir() == (target.suffix.lower() in ENDINGS):
        raise UsageError(f"{target} is {'a folder' if target.is_dir() else 'a file'}", "use another name")
    if target.is_dir() and not (target / "model_index.json").is_file() and any(target.iterdir()):
        raise UsageError(f"{target} is not a model, so it is not replaced", "use another name")
    if target.resolve() == files.path.resolve():
        raise UsageError(f"{target} is the model itself", "use another name")
    if ema and isinstance(files, ModelFolder):
        raise UsageError("`ema` has no effect on a folder, which has one set of weights", "leave it out")


def _open(files: Files, part: str, dtype: torch.dtype | None, *, ema: bool) -> Tensors:
    is_half = dtype in (torch.float16, torch.bfloat16)
    return read_part(files, part, half=is_half, ema=ema and part == "unet")


def _cast(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor
    if dtype is None:  # as it is; numbers of 8 bits become numbers of 16
        return tensor if str(tensor.dtype).removeprefix("torch.") in DTYPES else tensor.to(torch.float16)
    return tensor.to(dtype)


def _list_shapes(tensors: Tensors, dtype: torch.dtype | None) -> Shapes:
    found = {name: _cast(tensor.to("meta"), dtype) for name, tensor in tensors.items()}
    return {name: (DTYPES[str(t.dtype).removeprefix("torch.")], tuple(t.shape)) for name, t in found.items()}


# --- one file --------------------------------------------------------------------------------


def _write_file(
    files: Files,
    path: Path,
    dtype: torch.dtype | None,
    schedule: Mapping[str, Any],
    *,
    ema: bool,
    on_progress: Progress,
) -> None:
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
    for part in files.family.networks:
        meta = {name: tensor.to("meta") for name, tensor in _open(files, part, dtype, ema=ema).items()}
        shapes |= _list_shapes(to_original(files.family, part, meta, files.configs[part]), dtype)
    _check_unsaid(files, {name: shape for name, (_, shape) in shapes.items()}, schedule)
    is_velocity = schedule.get("prediction_type") == "v_prediction"
    markers = ["v_pred"] if is_velocity and files.family.name == "sdxl" else []
    markers += ["ztsnr"] if is_velocity and schedule.get("rescale_betas_zero_snr") else []
    shapes |= dict.fromkeys(markers, ("F32", (0,)))

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for part in files.family.networks:
            found = to_original(files.family, part, _open(files, part, dtype, ema=ema), files.configs[part])
            yield from ((name, _cast(tensor, dtype)) for name, tensor in found.items())
        yield from ((name, torch.zeros(0)) for name in markers)

    write_weights(path, shapes, tensors(), metadata=_describe(files, schedule), on_progress=on_progress)


def _describe(files: Files, schedule: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata of a file, in the words of ModelSpec."""
    prediction, family = schedule.get("prediction_type", "epsilon"), files.family.name
    side = native_size(files.configs["unet"], files.configs["vae"])
    architecture = _ARCHITECTURES.get(family) or _ARCHITECTURES.get(f"{family}-{prediction}", "stable-diffusion-v2-512")
    return {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": architecture + ("/inpainting" if files.task == "inpainting" else ""),
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": files.name,
        "modelspec.resolution": f"{side}x{side}",
        "modelspec.prediction_type": "v" if prediction == "v_prediction" else str(prediction),
    }


def _check_unsaid(files: Files, shapes: Mapping[str, tuple[int, ...]], schedule: Mapping[str, Any]) -> None:
    """Refuse a model that would be another one when it is read from a file; warn of what its family has not."""
    if schedule.get("prediction_type", "epsilon") not in ("epsilon", "v_prediction"):
        raise ModelError(
            f"a one-file checkpoint cannot say that {files.name} predicts the image", "convert to a folder"
        )
    derived = derive_configs(files.name, files.family, shapes)
    for part in files.family.networks:
        for key in _UNSAID:
            own, read = files.configs[part].get(key), derived[part].get(key)
            if own is not None and read is not None and _plain(own) != _plain(read):
                raise ModelError(
                    f"a one-file checkpoint cannot say that the {part} of {files.name} has {key} {own}: it would be "
                    f"read with {read}",
                    "convert it to a folder",
                )
    usual = read_template(files.family)["scheduler"]
    lost = [key for key in _TRAINED if key in schedule and schedule[key] != usual.get(key, schedule[key])]
    lost = [key for key in lost if not (key == "timestep_spacing" and schedule.get("rescale_betas_zero_snr"))]
    if lost or (schedule.get("timestep_spacing", "leading") == "trailing" and "timestep_spacing" not in usual):
        said = ", ".join(f"{key} {schedule[key]}" for key in lost or ["timestep_spacing"])
        log.warning("a one-file checkpoint does not say how %s was sampled: %s", files.name, said)
    if isinstance(files, ModelFolder) and files.has_safety_checker:
        log.warning("a one-file checkpoint has no safety checker: that of %s is left out", files.name)


def _plain(value: Any) -> Any:
    """One number stands for a list of it."""
    return value[0] if isinstance(value, list | tuple) and len(set(value)) == 1 else value


# --- a folder --------------------------------------------------------------------------------


def _write_folder(
    files: Files,
    path: Path,
    plan: Mapping[str, Shapes],
    dtype: torch.dtype | None,
    schedule: Mapping[str, Any],
    *,
    ema: bool,
    on_progress: Progress,
) -> None:
    path.mkdir()
    for part, shapes in plan.items():
        (path / part).mkdir()
        _write_json(path / part / "config.json", files.configs[part])
        tensors = _open(files, part, dtype, ema=ema)
        cast = ((name, _cast(tensor, dtype)) for name, tensor in tensors.items())
        weights = path / part / f"{stem_of(part)}.safetensors"
        write_weights(weights, shapes, cast, metadata={"format": "pt"}, on_progress=on_progress)
    for tokenizer in files.family.tokenizers:
        (path / tokenizer).mkdir()
        if isinstance(files, ModelFile):
            for name, text in tokenizer_files(files, tokenizer).items():
                (path / tokenizer / name).write_text(text, encoding="utf-8")
        else:
            _copy(files.path / tokenizer, path / tokenizer, (".json", ".txt"))
    (path / "scheduler").mkdir()
    _write_json(path / "scheduler" / "scheduler_config.json", schedule)
    index = dict(files.index) if isinstance(files, ModelFolder) else _make_index(files)
    for extra in _EXTRA:
        if isinstance(files, ModelFolder) and (files.path / extra).is_dir():
            (path / extra).mkdir()
            _copy(files.path / extra, path / extra, (".json", ".txt", ".safetensors"))
    _write_json(path / "model_index.json", index)


def _make_index(files: ModelFile) -> dict[str, Any]:
    from diffusers import __version__

    classes = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
    index: dict[str, Any] = {**files.index, "_diffusers_version": __version__}
    index |= {part: ["diffusers", name] for part, name in classes.items()}
    index["scheduler"] = ["diffusers", files.configs["scheduler"]["_class_name"]]
    for encoder in files.family.encoders:
        name = "CLIPTextModelWithProjection" if encoder.is_projected else "CLIPTextModel"
        index |= {encoder.folder: ["transformers", name], encoder.tokenizer: ["transformers", "CLIPTokenizer"]}
    if not files.family.takes_size:
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
        index["requires_safety_checker"] = False
    return index


def _copy(source: Path, target: Path, endings: tuple[str, ...]) -> None:
    for file in source.iterdir():
        if file.is_file() and file.suffix in endings:
            shutil.copyfile(file, target / file.name)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
