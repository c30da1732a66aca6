"""Load a base model: the embedded `mini`, a folder in diffusers layout, or a hub id.

Only safetensors are read and only classes named here are made; nothing in a model's folder is run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

from ..device import Placement, choose
from ..errors import ModelError, OutOfMemory

MINI = Path(__file__).parents[1] / "mini"
FAST_LORA = "fast.safetensors"  # a LoRA of the U-Net for few steps without guidance, beside model_index.json
PIPELINES = ("StableDiffusionPipeline",)
_NETWORKS = ("text_encoder", "unet", "vae")
_PARTS = ("tokenizer", "text_encoder", "unet", "vae", "scheduler")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True, eq=False)
class Model:
    """A frozen Stable Diffusion: tokenizers and text encoders (one; SDXL has two), U-Net, VAE.

    `scheduler_config` is the noise schedule it was trained with; `schedule.make` builds samplers of it.
    `fast` says that its LoRA for few steps without guidance is in the U-Net's weights.
    """

    name: str
    folder: Path
    revision: str
    tokenizers: tuple[Any, ...]
    text_encoders: tuple[Any, ...]
    unet: Any
    vae: Any
    scheduler_config: dict[str, Any]
    placement: Placement
    fast: bool = False

    @property
    def vae_scale_factor(self) -> int:
        """How many pixels one latent is wide."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def native_size(self) -> int:
        """Width and height in pixels of the pictures the model was trained on."""
        size = self.unet.config.sample_size
        return (size if isinstance(size, int) else size[0]) * self.vae_scale_factor

    @property
    def guidance_scale(self) -> float:
        """The guidance scale that suits the model."""
        return 3.0 if self.folder == MINI else 7.5

    @property
    def prediction_type(self) -> str:
        return self.scheduler_config.get("prediction_type", "epsilon")


# Loading makes empty networks by patching torch for the whole process; and two who want one model share it.
_LOADING = Lock()


def load(name: str = "mini", device: str = "auto", dtype: str = "auto", *, fast: bool = False) -> Model:
    """Load a model by `name`, `fast` with its LoRA for few steps; the last one stays in memory.

    Raises `ModelError` when it is missing, damaged, unsafe, unknown, or cannot be reached.
    """
    placement = choose(device, dtype)
    with _LOADING:
        return _load(name, placement, fast)


@lru_cache(maxsize=1)
def _load(name: str, placement: Placement, fast: bool) -> Model:
    _no_remote_code()
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder, revision = find(name)
    _check_index(name, folder)
    if fast and not (folder / FAST_LORA).is_file():
        raise ModelError(
            f"the model {name} brings no weights for few steps",
            "leave out --fast; a model distilled for few steps is used with --steps 4 --guidance 1",
        )
    half = placement.dtype_name != "float32"
    try:
        text_encoder = _weights(CLIPTextModel, folder / "text_encoder", placement, half)
        unet = _weights(UNet2DConditionModel, folder / "unet", placement, half)
        vae = _weights(AutoencoderKL, folder / "vae", placement, half)
        if fast:
            _merge(unet, folder / FAST_LORA)
        if placement.device.type == "cuda":
            import torch

            unet.to(memory_format=torch.channels_last)
        if half and vae.config.get("force_upcast"):
            vae.float()
        return Model(
            name=name,
            folder=folder,
            revision=revision,
            tokenizers=(CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),),
            text_encoders=(text_encoder,),
            unet=unet,
            vae=vae,
            scheduler_config=json.loads((folder / "scheduler" / "scheduler_config.json").read_text()),
            placement=placement,
            fast=fast,
        )
    except ModelError:
        raise
    except Exception as error:  # diffusers, transformers and safetensors raise anything at all here
        if "out of memory" in str(error).lower():
            raise OutOfMemory(
                f"the model {name} does not fit on {placement.device}",
                "use --dtype float16, or --device cpu",
            ) from error
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"the model {name} could not be loaded: {first}", "fetch or convert it again") from error


def _no_remote_code() -> None:
    os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def _weights(kind: Any, folder: Path, placement: Placement, half: bool) -> Any:
    """One network from its folder, frozen, on its device; half-precision files when they serve."""
    names = sorted(p.name for p in folder.glob("*.safetensors"))
    if not names:
        raise ModelError(
            f"{folder} holds no .safetensors weights",
            "only safetensors are loaded: pickles can run code; convert it first",
        )
    for index in folder.glob("*.safetensors.index*.json"):
        shards = json.loads(index.read_text()).get("weight_map", {}).values()
        if any(Path(shard).name != shard or "\\" in shard or ":" in shard for shard in shards):
            raise ModelError(f"{index} names a file outside its folder", "do not use this model")
    full = [n for n in names if ".fp16." not in n]
    variant = "fp16" if not full or (half and len(full) < len(names)) else None
    part = kind.from_pretrained(
        folder,
        use_safetensors=True,
        variant=variant,
        torch_dtype=placement.dtype,
        local_files_only=True,
    )
    return part.eval().requires_grad_(False).to(placement.device)


def _merge(unet: Any, lora: Path) -> None:
    """Add a LoRA (Hu et al., 2021; PEFT's names) to a U-Net's weights: each gains B·A."""
    from safetensors.torch import load_file

    found = load_file(lora)
    for key in found:
        layer, is_down, _ = key.removeprefix("unet.").partition(".lora_A.weight")
        if is_down:
            weight = unet.get_submodule(layer).weight
            down, up = found[key].float(), found[key.replace("lora_A", "lora_B")].float()
            change = (up.flatten(1) @ down.flatten(1)).view_as(weight)
            weight.copy_(weight.float() + change.to(weight.device))


def _check_index(name: str, folder: Path) -> None:
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        kind = index["_class_name"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError(
            f"{folder} is not a model in diffusers layout (no readable model_index.json)",
            "give the folder that holds model_index.json, unet/, vae/, text_encoder/ and tokenizer/",
        ) from None
    if kind not in PIPELINES:
        raise ModelError(f"{name} is a {kind}, which is not supported", f"supported: {', '.join(PIPELINES)}")
    missing = [part for part in _PARTS if not (folder / part).is_dir()]
    if missing:
        raise ModelError(f"the model {name} has no {' and no '.join(missing)}", "fetch it again, whole")


def find(name: str) -> tuple[Path, str]:
    """(folder, revision) of a model: embedded, local, in the hub's cache, or fetched from the hub."""
    if name == "mini":
        return MINI, f"diffusekit-{version('diffusekit')}"
    if (path := Path(name).expanduser()).is_dir():
        return path.resolve(), ""
    if not _HUB_ID.fullmatch(name) or path.suffix in (".safetensors", ".ckpt"):
        raise ModelError(
            f"there is no model {name!r}",
            f"available: {', '.join(installed())}; or a folder, or a hub id like owner/name",
        )
    return _from_hub(name)


def _from_hub(name: str) -> tuple[Path, str]:
    from huggingface_hub import constants, snapshot_download

    repo, _, revision = name.partition("@")
    revision = revision or "main"
    try:
        local = snapshot_download(repo, revision=revision, allow_patterns=["model_index.json"], local_files_only=True)
        if _is_whole(folder := Path(local)):
            return folder, folder.name
    except Exception:  # not in the cache: every reason has a type of its own
        pass
    here = f"available without a network: {', '.join(installed())}"
    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"the model {name} is not in the cache, and HF_HUB_OFFLINE is set", here)
    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=_wanted(repo, revision)))
    except Exception as error:
        raise ModelError(
            f"the model {name} could not be fetched from {constants.ENDPOINT}: {_brief(error)}",
            here,
        ) from error
    return folder, folder.name


def _is_whole(folder: Path) -> bool:
    """Whether nothing is missing from a cached model; an interrupted download left some parts out."""
    parts = all((folder / part).is_dir() for part in _PARTS)
    return parts and all(any((folder / part).glob("*.safetensors")) for part in _NETWORKS)


def _wanted(repo: str, revision: str) -> list[str]:
    """The files of a hub model that are needed: configurations, and one precision of the weights."""
    from huggingface_hub import HfApi

    files = [s.rfilename for s in HfApi().model_info(repo, revision=revision).siblings or []]
    wanted = [f for f in files if f == "model_index.json" or (f.startswith(_PARTS) and f.endswith((".json", ".txt")))]
    for part in _NETWORKS:
        weights = [f for f in files if f.startswith(f"{part}/") and f.endswith(".safetensors") and "non_ema" not in f]
        full = [f for f in weights if ".fp16." not in f]
        wanted += full or weights
    return wanted


def _brief(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__


def fingerprint(model: Model) -> str:
    """A hash of a model's token table and of the ends of its U-Net: tells models of one kind apart."""
    digest = hashlib.sha256()
    table = model.text_encoders[0].get_input_embeddings().weight
    for weight in (table, model.unet.conv_in.weight, model.unet.conv_out.weight):
        digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def installed() -> dict[str, Path]:
    """What `load` can use without a network: `mini` and the models in the hub's cache, by name."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    found = {"mini": MINI}
    try:
        repos = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return found
    for repo in sorted(repos, key=lambda repo: repo.repo_id):
        for revision in repo.revisions:
            if repo.repo_type == "model" and (revision.snapshot_path / "model_index.json").exists():
                found[repo.repo_id] = revision.snapshot_path
    return found
