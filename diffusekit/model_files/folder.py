"""A model in diffusers layout, described from its JSON files and the headers of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .headers import FETCH_AGAIN, read_header, read_json, unreadable
from .weights import STEMS, WeightFiles, find_weights

NETWORKS = ("text_encoder", "unet", "vae")
PARTS = ("tokenizer", *NETWORKS, "scheduler")
PIPELINE = "StableDiffusionPipeline"
SUPPORTED = "supported: Stable Diffusion 1.x and 2.x that make images from text (StableDiffusionPipeline)"
_CLASSES = {
    "StableDiffusionXLPipeline": "Stable Diffusion XL",
    "StableDiffusionXLImg2ImgPipeline": "Stable Diffusion XL (its refiner)",
    "StableDiffusionXLInpaintPipeline": "Stable Diffusion XL for inpainting",
    "StableDiffusion3Pipeline": "Stable Diffusion 3",
    "StableDiffusionInpaintPipeline": "Stable Diffusion for inpainting",
    "StableDiffusionInstructPix2PixPipeline": "InstructPix2Pix",
    "StableDiffusionUpscalePipeline": "Stable Diffusion upscaler",
    "StableDiffusionLatentUpscalePipeline": "Stable Diffusion upscaler",
    "StableDiffusionDepth2ImgPipeline": "Stable Diffusion with depth maps",
    "LatentConsistencyModelPipeline": "latent consistency model",
    "FluxPipeline": "FLUX",
    "PixArtAlphaPipeline": "PixArt",
}
_CHANNELS = {
    9: "inpainting (latents, a mask and masked latents)",
    8: "InstructPix2Pix (two images)",
    7: "upscaling (a small image)",
    5: "depth maps (latents and a depth map)",
}
# What diffusers takes for a value that a config.json leaves out.
_DEFAULTS = {"unet": {"block_out_channels": [320, 640, 1280, 1280]}, "vae": {"block_out_channels": [64]}}


@dataclass(frozen=True, eq=False)
class ModelFolder:
    """What a folder in diffusers layout says about its model. `read_folder` makes it."""

    name: str
    path: Path
    configs: Mapping[str, Mapping[str, Any]]  # of unet, vae, text_encoder and scheduler
    has_safety_checker: bool

    def weights(self, part: str, *, half: bool) -> WeightFiles:
        """Choose the weight files of a network; raises `ModelError` when no precision is whole."""
        return find_weights(self.path / part, STEMS[part], half=half)

    def files(self, *, half: bool) -> list[Path]:
        """List every file that decides about an image: weights, configurations, tokenizer. In a fixed order."""
        found = [self.path / "model_index.json"]
        for part in PARTS:
            found += sorted(p for p in (self.path / part).iterdir() if p.suffix in (".json", ".txt") and p.is_file())
        weights = {part: self.weights(part, half=half).names for part in NETWORKS}
        return [p for p in found if ".index." not in p.name] + [
            self.path / part / name for part, names in weights.items() for name in names
        ]

    @property
    def precision(self) -> str:
        """The precisions of the U-Net's weights by their names: "full", "half" or "full and half"."""
        variants = {self.weights("unet", half=half).is_half for half in (False, True)}
        return " and ".join(word for word, is_half in (("full", False), ("half", True)) if is_half in variants)


def read_folder(name: str, path: Path, *, weights: bool = True) -> ModelFolder:
    """Describe the model `name` in a folder, and check that its parts fit together.

    Without `weights`, only the JSON files are read. Raises `ModelError` for a folder that is not whole, and for
    a family that is not supported.
    """
    describe_class(name, path / "model_index.json")
    index = read_json(path / "model_index.json")
    try:
        missing = [part for part in PARTS if not (path / part).is_dir()]
    except OSError as error:
        raise unreadable(path, error) from None
    if missing:
        raise ModelError(f"the model {name} has no {' and no '.join(missing)}", "fetch the whole model again")
    files = dict.fromkeys(NETWORKS, "config.json") | {"scheduler": "scheduler_config.json"}
    configs = {part: _DEFAULTS.get(part, {}) | read_json(path / part / file) for part, file in files.items()}
    if isinstance(inner := configs["text_encoder"].get("text_config"), dict):
        configs["text_encoder"] = {**inner, **configs["text_encoder"]}
    _check_classes(name, configs)
    _check_unet(name, configs)
    _check_vae(name, configs["vae"], configs["unet"])
    _check_schedule(name, configs["scheduler"])
    _check_tokenizer(path / "tokenizer")
    checker = index.get("safety_checker")
    has_checker = isinstance(checker, list) and any(checker)
    folder = ModelFolder(name, path, configs, has_checker)
    if weights:
        for part in NETWORKS:
            for file in folder.weights(part, half=False).names:
                read_header(path / part / file)
    return folder


def describe_class(name: str, path: Path) -> None:
    """Raise `ModelError` unless a model_index.json names a supported pipeline."""
    pipeline = read_json(path).get("_class_name")
    if pipeline == PIPELINE:
        return
    if pipeline is None:
        raise ModelError(f"{path} names no pipeline class, so the model {name} is not supported", SUPPORTED)
    own = isinstance(pipeline, str) and _CLASSES.get(pipeline)
    what = f"{own} model ({pipeline})" if own else f"model of the class {str(pipeline)[:80]!r}"
    raise ModelError(f"{name} is a {what.replace('model model', 'model')}, which is not supported", SUPPORTED)


def _check_classes(name: str, configs: Mapping[str, Mapping[str, Any]]) -> None:
    for part, expected in (("unet", "UNet2DConditionModel"), ("vae", "AutoencoderKL")):
        given = configs[part].get("_class_name", expected)
        if given != expected:
            raise ModelError(f"the {part} of {name} is a {str(given)[:80]!r}, expected {expected}", SUPPORTED)
    text = configs["text_encoder"]
    kind = text.get("model_type", "clip_text_model")
    if kind not in ("clip_text_model", "clip"):
        raise ModelError(f"the text encoder of {name} is a {str(kind)[:80]!r}, expected CLIP", SUPPORTED)


def _check_unet(name: str, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that the U-Net needs latents, a timestep and text states, and nothing else."""
    unet, text = configs["unet"], configs["text_encoder"]
    given, made = _whole(name, "unet", unet, "in_channels", 4), _whole(name, "unet", unet, "out_channels", 4)
    if given != made:
        purpose = f"made for {_CHANNELS[given]}" if given in _CHANNELS else "of another kind of model"
        raise ModelError(f"the U-Net of {name} is {purpose}: {given} channels in and {made} out", SUPPORTED)
    if (extra := unet.get("addition_embed_type")) is not None:
        family = "is that of Stable Diffusion XL" if extra == "text_time" else "needs more than a prompt"
        raise ModelError(f"the U-Net of {name} {family} (its addition_embed_type is {str(extra)[:40]!r})", SUPPORTED)
    for key in ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type", "encoder_hid_dim"):
        if unet.get(key) is not None:
            raise ModelError(f"the U-Net of {name} needs more than a prompt (it has {key})", SUPPORTED)
    widths = unet.get("cross_attention_dim", 1280)
    widths = set(widths) if isinstance(widths, list) else {widths}
    width = _whole(name, "text_encoder", text, "hidden_size", 512)
    if widths != {width}:
        given_widths = " and ".join(sorted(str(each)[:20] for each in widths))
        raise ModelError(
            f"the U-Net of {name} takes text states of width {given_widths}, its text encoder makes {width}",
            "use the text encoder that the U-Net was trained with",
        )
    _levels(name, "unet", unet)


def _check_vae(name: str, vae: Mapping[str, Any], unet: Mapping[str, Any]) -> None:
    channels, taken = _whole(name, "vae", vae, "latent_channels", 4), _whole(name, "unet", unet, "in_channels", 4)
    if channels != taken:
        raise ModelError(
            f"the U-Net of {name} takes latents of {taken} channels, its VAE has {channels}",
            "use the VAE that the U-Net was trained with",
        )
    for key in ("in_channels", "out_channels"):
        if (value := _whole(name, "vae", vae, key, 3)) != 3:
            raise ModelError(f"the VAE of {name} has {key} {value}, expected 3 for RGB images", SUPPORTED)
    for key in ("shift_factor", "latents_mean", "latents_std"):
        if vae.get(key):
            raise ModelError(f"the VAE of {name} moves its latents ({key}), as other families do", SUPPORTED)
    scale = vae.get("scaling_factor", 0.18215)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < float("inf"):
        raise _unusable(name, "vae", "scaling_factor", scale)
    _levels(name, "vae", vae)


def _check_schedule(name: str, schedule: Mapping[str, Any]) -> None:
    prediction = schedule.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction", "sample"):
        raise ModelError(f"the model {name} predicts {str(prediction)[:40]!r}, which is not supported", SUPPORTED)
    if not isinstance(schedule.get("beta_schedule"), str) and not schedule.get("trained_betas"):
        what = "a flow" if "shift" in schedule else "no noise schedule (beta_schedule)"
        raise ModelError(f"the scheduler of {name} has {what}, expected the betas of a diffusion", SUPPORTED)
    _whole(name, "scheduler", schedule, "num_train_timesteps", 1000)
    for key in ("beta_start", "beta_end"):
        value = schedule.get(key, 0.01)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise _unusable(name, "scheduler", key, value)


def _check_tokenizer(folder: Path) -> None:
    """Check that a tokenizer has its vocabulary, in one file or in two, and says how it pads prompts."""
    one, two = folder / "tokenizer.json", (folder / "vocab.json", folder / "merges.txt")
    if one.is_file():
        model = read_json(one).get("model")
        if not isinstance(model, dict) or not model.get("vocab"):
            raise ModelError(f"{one} holds no vocabulary", FETCH_AGAIN)
    elif missing := [file.name for file in two if not file.is_file()]:
        raise ModelError(f"{folder} has no {' and no '.join(missing)}, which hold the vocabulary", FETCH_AGAIN)
    more = [read_json(folder / "tokenizer_config.json")]
    if (special := folder / "special_tokens_map.json").is_file():
        more.append(read_json(special))
    if not any("pad_token" in content for content in more):
        raise ModelError(f"{folder} does not say how prompts are padded (`pad_token`)", FETCH_AGAIN)
    for file in folder.glob("*.json"):
        read_json(file)
    for file in folder.glob("*.txt"):
        if not file.stat().st_size:
            raise ModelError(f"{file} is empty", FETCH_AGAIN)


def native_size(unet: Mapping[str, Any], vae: Mapping[str, Any]) -> int:
    """Width and height in pixels of the images that a model was trained on."""
    size = unet.get("sample_size") or 64  # Stable Diffusion 1.x
    return (size if isinstance(size, int) else int(size[0])) * vae_scale_factor(vae)


def vae_scale_factor(vae: Mapping[str, Any]) -> int:
    """How many pixels one latent is wide."""
    return 2 ** (len(vae["block_out_channels"]) - 1)


def _levels(name: str, part: str, config: Mapping[str, Any]) -> None:
    levels = config["block_out_channels"]
    if not isinstance(levels, list) or not levels or not all(type(level) is int and level > 0 for level in levels):
        raise _unusable(name, part, "block_out_channels", levels)
    size = config.get("sample_size")
    sides = size if isinstance(size, list) and len(size) == 2 else [1 if size is None else size]
    if not all(type(side) is int and 0 < side <= 8192 for side in sides):
        raise _unusable(name, part, "sample_size", size)


def _whole(name: str, part: str, config: Mapping[str, Any], key: str, default: int) -> int:
    value = config.get(key, default)
    if type(value) is not int or not 0 < value <= 100_000:
        raise _unusable(name, part, key, value)
    return value


def _unusable(name: str, part: str, key: str, value: object) -> ModelError:
    return ModelError(f"the {part} of {name} has an unusable {key}: {str(value)[:60]!r}", FETCH_AGAIN)
