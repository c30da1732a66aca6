"""Another sitting: one part of a finished model goes on learning, all others stay as they are.

A text encoder that reads on says nearly the same as before of all but pairs, and an autoencoder's latents stay
near what they were; after either the U-Net goes on too, since it is what listens, or what draws, and after a text
encoder the image tower, which agrees with it.
"""

import shutil
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from . import dataset, distill, image_encoder, text_encoder, unet, vae, widen
from .config import Bench, Clock, Recipe
from .export import FAST, export
from .world.scenes import WHOLE


@dataclass(frozen=True)
class Sitting:
    """What goes on, from which folder, by which recipe, and how long."""

    start: Path
    recipe: Recipe
    bench: Bench
    minutes: float
    steps: int | None = None

    def part(self, kind: type, name: str) -> Any:
        """A network of the folder, in float32."""
        return kind.from_pretrained(self.start / name, torch_dtype=torch.float32).to(self.bench.device)  # type: ignore[attr-defined]

    @property
    def words(self) -> CLIPTokenizer:
        return CLIPTokenizer.from_pretrained(self.start / "tokenizer")

    @property
    def every_style(self) -> Recipe:
        return replace(self.recipe, part=WHOLE)


def _text(sitting: Sitting) -> dict[str, Any]:
    text = sitting.part(CLIPTextModel, "text_encoder")
    text = text_encoder.train(sitting.recipe, sitting.bench, sitting.minutes, sitting.words, sitting.steps, text)
    return {"text": text}


def _unet(sitting: Sitting) -> dict[str, Any]:
    recipe, bench = replace(sitting.recipe, text_until=0.0), sitting.bench
    codec = sitting.part(AutoencoderKL, "vae").eval()
    latents = dataset.encode(recipe, bench, codec, sitting.words)
    text = sitting.part(CLIPTextModel, "text_encoder")
    net = sitting.part(UNet2DConditionModel, "unet")
    learner = unet.Learner(recipe, bench, text, sitting.words, net)
    _, net = unet.train(learner, Clock(sitting.minutes, sitting.steps), latents, codec)
    return {"unet": net}


def _vae(sitting: Sitting) -> dict[str, Any]:
    before = sitting.part(AutoencoderKL, "vae").eval()
    had, channels = before.config.latent_channels, sitting.recipe.latent_channels
    codec = widen.autoencoder(before, channels) if channels > had else deepcopy(before)
    vae.further(sitting.every_style, sitting.bench, sitting.minutes, codec, before, sitting.steps)
    if channels == had:
        return {"vae": codec}
    return {"vae": codec, "unet": widen.unet(sitting.part(UNet2DConditionModel, "unet"), channels)}


def _decoder(sitting: Sitting) -> dict[str, Any]:
    codec = sitting.part(AutoencoderKL, "vae").eval()
    vae.polish(sitting.every_style, sitting.bench, sitting.minutes, codec, sitting.steps)
    return {"vae": codec}


def _tower(sitting: Sitting) -> dict[str, Any]:
    text = sitting.part(CLIPTextModel, "text_encoder").eval()
    image = sitting.part(CLIPVisionModelWithProjection, "image_encoder")
    projection = load_file(sitting.start / "text_projection.safetensors")["text_projection.weight"]
    image, projection = image_encoder.train(
        sitting.every_style,
        sitting.bench,
        sitting.minutes,
        text,
        sitting.words,
        sitting.steps,
        (image, projection.float()),
    )
    return {"image": image, "text_projection": projection}


def _fast(sitting: Sitting) -> dict[str, Any]:
    teacher = distill.Teacher(
        sitting.recipe,
        sitting.bench,
        sitting.part(CLIPTextModel, "text_encoder"),
        sitting.words,
        sitting.part(UNet2DConditionModel, "unet"),
    )
    return {"fast": distill.train(teacher, sitting.minutes, sitting.steps)}


STAGES = {
    "text": _text,
    "vae": _vae,
    "unet": _unet,
    "decoder": _decoder,
    "tower": _tower,
    "fast": _fast,
}
_UNDER_FAST = {"text", "unet"}  # what the LoRA of few steps was made for


def further(stage: str, sitting: Sitting, output: Path) -> None:
    """One stage of a finished model, and the whole model as a folder again."""
    sitting.bench.say(f"start: {sitting.bench.device}, bf16 {sitting.bench.bf16}, {stage}, from {sitting.start}")
    changed = STAGES[stage](sitting)
    if output.resolve() != sitting.start.resolve():
        shutil.copytree(sitting.start, output, dirs_exist_ok=True)
    if _UNDER_FAST & changed.keys() and (output / FAST).exists():
        (output / FAST).unlink()
        sitting.bench.say(f"{FAST} was made for what was there before: make it anew (--stage fast)")
    export(output, **changed)
