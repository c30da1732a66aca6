"""Checks of the configurations of a model: what its parts are, and whether they fit together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .families import SD1, SD2, SUPPORTED, Family, Task
from .headers import FETCH_AGAIN, read_json
from .remote_code import read_config

Configs = Mapping[str, Mapping[str, Any]]
_CHANNELS = {
    8: "InstructPix2Pix (two images)",
    7: "upscaling (a small image)",
    5: "depth maps (latents and a depth map)",
}
_SIZE_IDS = 6  # numbers that tell a U-Net of Stable Diffusion XL the sizes of an image


def check_configs(name: str, family: Family, configs: Configs) -> tuple[Family, Task]:
    """Check that the parts of the model `name` fit together; return its family and its task.

    `family` is what its pipeline class says, which does not tell 1.x from 2.x. Raises `ModelError`.
    """
    _check_classes(name, family, configs)
    task = _check_unet(name, family, configs)
    _check_text_width(name, family, configs)
    check_vae(name, configs["vae"], configs["unet"])
    _check_schedule(name, configs["scheduler"])
    if family is SD1 and configs["unet"].get("use_linear_projection"):
        family = SD2
    return family, task


def _check_classes(name: str, family: Family, configs: Configs) -> None:
    for part, expected in (("unet", "UNet2DConditionModel"), ("vae", "AutoencoderKL")):
        given = configs[part].get("_class_name", expected)
        if given != expected:
            raise ModelError(f"the {part} of {name} is a {str(given)[:80]!r}, expected {expected}", SUPPORTED)
    for encoder in family.encoders:
        kind = configs[encoder.folder].get("model_type", "clip_text_model")
        if kind not in ("clip_text_model", "clip"):
            raise ModelError(f"the {encoder.folder} of {name} is a {str(kind)[:80]!r}, expected CLIP", SUPPORTED)


def _check_unet(name: str, family: Family, configs: Configs) -> Task:
    """Check that the U-Net needs only what the family gives it: latents, a timestep, text states, for XL sizes."""
    unet = configs["unet"]
    given, made = _whole(name, "unet", unet, "in_channels", 4), _whole(name, "unet", unet, "out_channels", 4)
    if given not in (made, 2 * made + 1):  # latents, or latents, a mask and masked latents
        purpose = f"made for {_CHANNELS[given]}" if given in _CHANNELS else "of another kind of model"
        raise ModelError(f"the U-Net of {name} is {purpose}: {given} channels in and {made} out", SUPPORTED)
    extra, expected = unet.get("addition_embed_type"), "text_time" if len(family.encoders) > 1 else None
    if extra != expected:
        kind = "is that of Stable Diffusion XL" if extra == "text_time" else "needs more than a prompt"
        kind = kind if extra is not None else "is not that of Stable Diffusion XL"
        raise ModelError(f"the U-Net of {name} {kind} (its addition_embed_type is {str(extra)[:40]!r})", SUPPORTED)
    for key in ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type", "encoder_hid_dim"):
        if unet.get(key) is not None:
            raise ModelError(f"the U-Net of {name} needs more than a prompt (it has {key})", SUPPORTED)
    _levels(name, "unet", unet)
    return "text" if given == made else "inpainting"


def _check_text_width(name: str, family: Family, configs: Configs) -> None:
    """Check that the text encoders make what the U-Net takes."""
    unet = configs["unet"]
    widths = unet.get("cross_attention_dim", 1280)
    widths = set(widths) if isinstance(widths, list) else {widths}
    own = [_whole(name, e.folder, configs[e.folder], "hidden_size", 512) for e in family.encoders]
    if widths != {sum(own)}:
        given = " and ".join(sorted(str(each)[:20] for each in widths))
        made = " and ".join(map(str, own))
        encoders = "text encoder makes" if len(own) == 1 else "text encoders make"
        raise ModelError(
            f"the U-Net of {name} takes text states of width {given}, its {encoders} {made}",
            f"use the {encoders.rpartition(' ')[0]} that the U-Net was trained with",
        )
    if len(own) == 1:
        return
    last = family.encoders[-1].folder
    pooled = _whole(name, last, configs[last], "projection_dim", 512)
    size_ids = _SIZE_IDS * _whole(name, "unet", unet, "addition_time_embed_dim", 256)
    taken = _whole(name, "unet", unet, "projection_class_embeddings_input_dim", 2816)
    if taken != size_ids + pooled:
        raise ModelError(
            f"the U-Net of {name} takes {taken} numbers for the pooled prompt and the sizes of an image, "
            f"expected {size_ids + pooled}",
            "use the text encoders that the U-Net was trained with",
        )


def check_vae(name: str, vae: Mapping[str, Any], unet: Mapping[str, Any]) -> None:
    channels, taken = _whole(name, "vae", vae, "latent_channels", 4), _whole(name, "unet", unet, "out_channels", 4)
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


def check_tokenizer(folder: Path) -> None:
    """Check that a tokenizer has its vocabulary, in one file or in two, and says how it pads prompts."""
    one, two = folder / "tokenizer.json", (folder / "vocab.json", folder / "merges.txt")
    if one.is_file():
        model = read_json(one).get("model")
        if not isinstance(model, dict) or not model.get("vocab"):
            raise ModelError(f"{one} holds no vocabulary", FETCH_AGAIN)
    elif missing := [file.name for file in two if not file.is_file()]:
        raise ModelError(f"{folder} has no {' and no '.join(missing)}, which hold the vocabulary", FETCH_AGAIN)
    more = [read_config(folder / "tokenizer_config.json")]
    if (special := folder / "special_tokens_map.json").is_file():
        more.append(read_json(special))
    if not any("pad_token" in content for content in more):
        raise ModelError(f"{folder} does not say how prompts are padded (`pad_token`)", FETCH_AGAIN)
    for file in folder.glob("*.json"):
        read_json(file)
    for file in folder.glob("*.txt"):
        if not file.stat().st_size:
            raise ModelError(f"{file} is empty", FETCH_AGAIN)


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
