"""Build the networks of a model from its folder or its file.

Only safetensors are read, and only classes named here are made. Nothing in a model's folder is run.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Unpack

from .. import hub
from ..device import Placement, choose
from ..display import first_line, quote
from ..errors import ModelError, OutOfMemory, UsageError
from ..model_files import (
    EncoderPart,
    ModelFile,
    ModelFolder,
    SamplingDefaults,
    WeightFiles,
    read_header,
    read_model,
    stem_of,
)
from ..model_files.headers import FETCH_AGAIN
from ..model_files.prediction import PredictionType
from ..options import LoadOptions
from ..settings import Settings
from . import tensors
from .lora import merge_lora
from .model import Model, TextModel, sampling_defaults
from .vae import OwnVae, describe_vae, load_vae

log = logging.getLogger(__name__)
# Loading patches torch for the whole process to make empty networks, and two callers of one model share it.
_LOADING = Lock()


@dataclass(frozen=True)
class LoadRequest:
    """Everything that decides which networks are built, and how. Equal requests share one model."""

    name: str
    placement: Placement
    fast: bool = False
    vae: str | None = None
    prediction_type: PredictionType | None = None


def load(name: str = "mini", device: str = "auto", dtype: str = "auto", **options: Unpack[LoadOptions]) -> Model:
    """Load a model by name, with its few-step LoRA if `fast`. The last model stays in memory and is shared.

    Raises `ModelError` when it is missing, damaged, unsafe, unknown or cannot be reached, and `OutOfMemory`.
    """
    request = LoadRequest(name, choose(device, dtype), **options)
    with _LOADING:
        return _load(request)


def load_for(settings: Settings, name: str | None = None) -> Model:
    """Load the model of a verb's settings, or the model `name` in the way these settings say."""
    wanted = {key: getattr(settings, key) for key in LoadOptions.__annotations__ if hasattr(settings, key)}
    values: Any = settings
    return load(name or values.model, values.device, values.dtype, **wanted)


def load_text(name: str = "mini") -> TextModel:
    """Load only tokenizers and text encoders, on the CPU in float32, apart from the models that `load` shares.

    The last two stay in memory. Raises `ModelError` as `load` does.
    """
    with _LOADING:
        return _load_text(name)


@lru_cache(maxsize=1)
def _load(request: LoadRequest) -> Model:
    placement = request.placement
    place, files = _prepare(request.name, placement, request.prediction_type)
    own_vae = describe_vae(request.vae, files)
    if request.fast and not (place.folder / hub.FAST_LORA).is_file():
        raise ModelError(
            f"the model {place.name} has no few-step LoRA",
            "leave out `fast`; a model of few steps needs no setting",
        )
    with _loading_errors(place.name, placement):
        # diffusers first: it imports the parts of transformers that it needs, in less time than the other way round
        unet = _unet(files, placement, fast=request.fast)
        vae = load_vae(own_vae.files, placement) if own_vae else _vae(files, placement)
        tokenizers, text_encoders = _text_parts(files, placement)
    defaults = sampling_defaults(place.folder, files)
    return Model(
        name=place.name,
        folder=place.folder,
        revision=place.revision,
        placement=placement,
        family=files.family,
        tokenizers=tokenizers,
        text_encoders=text_encoders,
        zeroes_empty_prompt=files.zeroes_empty_prompt,
        unet=unet,
        vae=vae,
        scheduler_config=_scheduler_config(files, defaults, request.prediction_type),
        defaults=defaults,
        task=files.task,
        fast=request.fast,
        vae_path=own_vae.path if own_vae else None,
        vae_name=own_vae.files.name if own_vae else "",
        prediction_is_given=request.prediction_type is not None,
        warnings=_warn(files, own_vae),
    )


def _warn(files: ModelFolder | ModelFile, vae: OwnVae | None) -> tuple[str, ...]:
    """Log what was assumed about a model, and return it."""
    found = [files.assumption if isinstance(files, ModelFile) else "", vae.files.warning if vae else ""]
    warnings = tuple(sentence for sentence in found if sentence)
    for sentence in warnings:
        log.warning("%s", sentence)
    return warnings


def _scheduler_config(
    files: ModelFolder | ModelFile, defaults: SamplingDefaults, prediction_type: str | None
) -> dict[str, Any]:
    config = dict(files.configs["scheduler"]) | dict(defaults.scheduler)
    return config | ({"prediction_type": prediction_type} if prediction_type else {})


def resolve(model: str | Model, device: str = "auto", dtype: str = "auto", **options: Unpack[LoadOptions]) -> Model:
    """Return a loaded model as it is, and load one that is given by its name.

    Raises `UsageError` for a device, precision or option that a loaded model has already.
    """
    if isinstance(model, str):
        return load(model, device, dtype, **options)
    defaults = {each.name: each.default for each in fields(LoadRequest)}
    given = [name for name, value in (("device", device), ("dtype", dtype)) if value != "auto"]
    for name in given + [name for name, value in options.items() if value != defaults[name]]:
        raise UsageError(f"`{name}` is decided when a model is loaded", f"give `{name}` to load_model instead")
    return model


@lru_cache(maxsize=2)
def _load_text(name: str) -> TextModel:
    placement = choose("cpu", "float32")
    place, files = _prepare(name, placement)
    with _loading_errors(place.name, placement):
        where = (place.name, place.folder, place.revision, placement, files.family)
        return TextModel(*where, *_text_parts(files, placement), zeroes_empty_prompt=files.zeroes_empty_prompt)


def _prepare(
    name: str, placement: Placement, prediction_type: PredictionType | None = None
) -> tuple[hub.Location, ModelFolder | ModelFile]:
    """Find a model, check its files, and make sure that none of its code can run."""
    os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    place = hub.locate(name, half=lambda: placement.is_half)
    return place, read_model(place.name, place.folder, prediction_type=prediction_type)


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


@contextmanager
def _silence() -> Iterator[None]:
    """Keep lines and bars of the libraries from stderr: what they find wrong becomes an error of ours."""
    from diffusers.utils.logging import disable_progress_bar

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


def _text_parts(files: ModelFolder | ModelFile, placement: Placement) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    parts = [_text_part(files, encoder, placement) for encoder in files.family.encoders]
    tokenizers, encoders = zip(*parts, strict=True)
    return tokenizers, encoders


def _text_part(files: ModelFolder | ModelFile, part: EncoderPart, placement: Placement) -> tuple[Any, Any]:
    """Load one text encoder with its tokenizer."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    with _silence(), tensors.tokenizer_folder(files, part.tokenizer) as folder:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    network = CLIPTextModelWithProjection if part.is_projected else CLIPTextModel
    encoder = _network(network, files, part.folder, placement)
    rows, words = encoder.get_input_embeddings().num_embeddings, len(tokenizer)
    if words > rows:
        raise ModelError(
            f"the {part.tokenizer} of {files.name} has {words:,} words, its {part.folder} {rows:,}",
            "use the tokenizer that belongs to the text encoder",
        )
    return tokenizer, encoder


def _unet(files: ModelFolder | ModelFile, placement: Placement, *, fast: bool) -> Any:
    import torch
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    unet = _network(UNet2DConditionModel, files, "unet", placement)
    if fast:
        merge_lora(unet, files.path / hub.FAST_LORA)
    return unet.to(memory_format=torch.channels_last) if placement.device.type == "cuda" else unet


def _vae(files: ModelFolder | ModelFile, placement: Placement) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    vae = _network(AutoencoderKL, files, "vae", placement)
    return vae.float() if vae.config.get("force_upcast") else vae


def _network(network: Any, files: ModelFolder | ModelFile, part: str, placement: Placement) -> Any:
    """Load one network, frozen, on its device. Raises `ModelError` when weights are missing."""
    if isinstance(files, ModelFile):
        with _silence():
            found = tensors.read_part(files, part)
            what = f"the {part} of {files.name}"
            return tensors.build(network, files.configs[part], found, placement.dtype, what).to(placement.device)
    chosen = files.weights(part, half=placement.is_half)
    for file in chosen.names:
        read_header(files.path / part / file)
    misfit = f"the weights of the {part} of {files.name} do not fit its config.json"
    try:
        with _silence(), _plain_names(files.path / part, chosen, stem_of(part)) as folder:
            loaded, report = network.from_pretrained(
                folder,
                use_safetensors=True,
                torch_dtype=placement.dtype,
                local_files_only=True,
                output_loading_info=True,
            )
    except (ValueError, RuntimeError) as error:
        if "shape" in str(error) or "size mismatch" in str(error):
            raise ModelError(f"{misfit}: a tensor has another shape", FETCH_AGAIN) from error
        raise
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"{misfit}: {len(missing)} tensors are missing, the first is {quote(missing[0])}", FETCH_AGAIN)
    return loaded.eval().requires_grad_(False).to(placement.device)


@contextmanager
def _plain_names(folder: Path, weights: WeightFiles, stem: str) -> Iterator[Path]:
    """Give weights the names that the libraries look for, by links in a temporary folder if need be.

    diffusers and transformers each know other spellings of half-precision files and shards.
    """
    has_index = any(".index." in path.name for path in folder.iterdir())
    if weights.names == (f"{stem}.safetensors",) and not has_index:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="diffusekit-") as temporary:
        target = Path(temporary)
        shutil.copy(folder / "config.json", target)
        count, weight_map = len(weights.names), {}
        for number, name in enumerate(weights.names, 1):
            plain = f"{stem}.safetensors" if count == 1 else f"{stem}-{number:05}-of-{count:05}.safetensors"
            _link(folder / name, target / plain)
            weight_map |= dict.fromkeys(read_header(folder / name).tensors, plain)
        if count > 1:
            size = sum((folder / name).stat().st_size for name in weights.names)
            index = {"metadata": {"total_size": size}, "weight_map": weight_map}
            (target / f"{stem}.safetensors.index.json").write_text(json.dumps(index))
        yield target


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source.resolve())
    except OSError:  # Windows lets few users make links
        shutil.copy(source, target)
