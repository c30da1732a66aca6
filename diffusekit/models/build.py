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
from pathlib import Path
from threading import RLock
from typing import Any, Unpack

from .. import hub
from ..device import Attention, Placement, check_attention, choose, free_memory
from ..display import first_line, parse_size, quote
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
from .attention_kernels import choose_attention
from .lora import merge_lora
from .memory import MemoryPlan, make_plan, measure, needed_as_usual
from .model import Model, TextModel, sampling_defaults
from .model_cache import ModelCache
from .offload import apply_plan
from .vae import OwnVae, describe_vae, load_vae

log = logging.getLogger(__name__)
# Loading patches torch for the whole process to make empty networks, and two callers of one model share it.
_LOADING = RLock()
_LOADED = ModelCache(count=6)


@dataclass(frozen=True)
class LoadRequest:
    """Everything that decides which networks are built, and how. Equal requests share one model."""

    name: str
    placement: Placement
    fast: bool = False
    vae: str | None = None
    prediction_type: PredictionType | None = None
    attention: Attention = "sdpa"
    memory: str | None = None


def load(name: str = "mini", device: str = "auto", dtype: str = "auto", **options: Unpack[LoadOptions]) -> Model:
    """Load a model by name, with its few-step LoRA if `fast`.

    Models stay in memory and are shared as long as there is room for them. Raises `ModelError` when it is missing,
    damaged, unsafe, unknown or cannot be reached, `OutOfMemory` when it fits in no form, and `UsageError` for an
    `attention` that does not work here.
    """
    request = LoadRequest(name, choose(device, dtype), **options)
    with _LOADING:
        return _LOADED.find(request, lambda model: _is_suitable(model, request)) or _load(request)


def plan_memory(
    name: str = "mini", device: str = "auto", dtype: str = "auto", **options: Unpack[LoadOptions]
) -> MemoryPlan:
    """Return the memory plan that `load` would make now, without loading; raises as `load` does."""
    request = LoadRequest(name, choose(device, dtype), **options)
    place, files = _prepare(request.name, request.placement, request.prediction_type)
    return _plan(request, place.name, files)


def list_loaded() -> list[tuple[str, int]]:
    """List name and bytes of weights of the models in memory, the last used at the end."""
    with _LOADING:
        return _LOADED.sizes()


def load_for(settings: Settings, name: str | None = None) -> Model:
    """Load the model of a verb's settings, or the model `name` in the way these settings say."""
    wanted = {key: getattr(settings, key) for key in LoadOptions.__annotations__ if hasattr(settings, key)}
    values: Any = settings
    return load(name or values.model, values.device, values.dtype, **wanted)


def load_text(name: str = "mini") -> TextModel:
    """Load only tokenizers and text encoders, on the CPU in float32, apart from the models that `load` shares.

    They stay in memory as models do. Raises `ModelError` as `load` does.
    """
    request = LoadRequest(f"the text side of {name}", choose("cpu", "float32"))
    with _LOADING:
        return _LOADED.find(request, lambda model: hub.is_current(name, model.folder)) or _load_text(name, request)


def _is_suitable(model: Model, request: LoadRequest) -> bool:
    """Whether a model in memory can serve a request.

    The name may mean another model now, and a memory plan may have chosen another precision for an earlier request.
    """
    placement = request.placement
    has_precision = placement.has_free_dtype or model.placement.dtype == placement.dtype
    return has_precision and hub.is_current(request.name, model.folder)


def _plan(request: LoadRequest, name: str, files: ModelFolder | ModelFile, *, drops: bool = False) -> MemoryPlan:
    """Plan the memory of a model. If it `drops` others, those in memory first make room for its usual form."""
    placement = request.placement
    limit = parse_size(request.memory) if request.memory else None
    footprint = measure(files, request.attention, half=placement.is_half)
    if drops:
        _LOADED.make_room(placement.device, needed_as_usual(footprint, placement), limit)
    return make_plan(name, footprint, placement, free_memory(placement.device), limit)


def _describe(request: LoadRequest) -> tuple[hub.Location, ModelFolder | ModelFile, OwnVae | None]:
    """Find the files of a model and of its own VAE, and check everything that is asked for. Reads no weights."""
    if request.attention != "sdpa":
        check_attention(request.attention, request.placement)
    place, files = _prepare(request.name, request.placement, request.prediction_type)
    own_vae = describe_vae(request.vae, files)
    if request.fast and not (place.folder / hub.FAST_LORA).is_file():
        raise ModelError(
            f"the model {place.name} has no few-step LoRA",
            "leave out `fast`; a model of few steps needs no setting",
        )
    return place, files, own_vae


def _load(request: LoadRequest) -> Model:
    place, files, own_vae = _describe(request)
    plan = _plan(request, place.name, files, drops=True)
    log.log(logging.DEBUG if plan.is_usual and not plan.is_forced else logging.WARNING, "%s", plan)
    placement = plan.placement_to_build
    with _loading_errors(place.name, placement):
        # diffusers first: it imports the parts of transformers that it needs, in less time than the other way round
        unet = _unet(files, placement, fast=request.fast)
        vae = load_vae(own_vae.files, placement) if own_vae else _vae(files, placement)
        tokenizers, text_encoders = _text_parts(files, placement)
        choose_attention(request.attention, unet, vae, text_encoders)
    defaults = sampling_defaults(place.folder, files)
    model = Model(
        name=place.name,
        folder=place.folder,
        revision=place.revision,
        placement=plan.placement,
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
        attention=request.attention,
        plan=plan,
    )
    apply_plan(plan, model)
    own = own_vae.files.weights if own_vae else ()
    return _LOADED.keep(request, model, [*files.files(half=placement.is_half), *own])


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


def resolve_for(model: str | Model, settings: Settings) -> Model:
    """Do as `resolve` with the settings of a verb."""
    return load_for(settings, model) if isinstance(model, str) else model


def _load_text(name: str, request: LoadRequest) -> TextModel:
    placement = request.placement
    place, files = _prepare(name, placement)
    footprint = measure(files, "sdpa", half=False)
    encoders = sum(footprint.network(each.folder, placement.dtype) for each in files.family.encoders)
    _LOADED.make_room(placement.device, encoders)
    with _loading_errors(place.name, placement):
        where = (place.name, place.folder, place.revision, placement, files.family)
        model = TextModel(*where, *_text_parts(files, placement), zeroes_empty_prompt=files.zeroes_empty_prompt)
    return _LOADED.keep(request, model, files.files(half=False))


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
