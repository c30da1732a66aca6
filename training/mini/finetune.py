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
from .config import Recipe
from .export import FAST, export
from .runtime import Runtime, TimeBudget
from .world.scenes import WHOLE_WORLD


@dataclass(frozen=True)
class FinetuneRun:
    """What goes on, from which folder, by which recipe, and how long."""

    start: Path
    recipe: Recipe
    runtime: Runtime
    minutes: float
    steps: int | None = None

    def load(self, kind: type, name: str) -> Any:
        """A network of the folder, in float32."""
        return kind.from_pretrained(self.start / name, torch_dtype=torch.float32).to(self.runtime.device)  # type: ignore[attr-defined]

    @property
    def tokenizer(self) -> CLIPTokenizer:
        return CLIPTokenizer.from_pretrained(self.start / "tokenizer")

    @property
    def whole_world(self) -> Recipe:
        return replace(self.recipe, domain=WHOLE_WORLD)


def _text(sitting: FinetuneRun) -> dict[str, Any]:
    text = sitting.load(CLIPTextModel, "text_encoder")
    text = text_encoder.train(sitting.recipe, sitting.runtime, sitting.minutes, sitting.tokenizer, sitting.steps, text)
    return {"text": text}


def _unet(sitting: FinetuneRun) -> dict[str, Any]:
    recipe, runtime = replace(sitting.recipe, text_training_share=0.0), sitting.runtime
    codec = sitting.load(AutoencoderKL, "vae").eval()
    latents = dataset.encode(recipe, runtime, codec, sitting.tokenizer)
    text = sitting.load(CLIPTextModel, "text_encoder")
    net = sitting.load(UNet2DConditionModel, "unet")
    learner = unet.UNetTrainer(recipe, runtime, text, sitting.tokenizer, net)
    _, net = unet.train(learner, TimeBudget(sitting.minutes, sitting.steps), latents, codec)
    return {"unet": net}


def _vae(sitting: FinetuneRun) -> dict[str, Any]:
    before = sitting.load(AutoencoderKL, "vae").eval()
    had, channels = before.config.latent_channels, sitting.recipe.latent_channels
    codec = widen.widen_vae(before, channels) if channels > had else deepcopy(before)
    vae.finetune(sitting.whole_world, sitting.runtime, sitting.minutes, codec, before, sitting.steps)
    if channels == had:
        return {"vae": codec}
    return {"vae": codec, "unet": widen.widen_unet(sitting.load(UNet2DConditionModel, "unet"), channels)}


def _decoder(sitting: FinetuneRun) -> dict[str, Any]:
    codec = sitting.load(AutoencoderKL, "vae").eval()
    vae.train_decoder(sitting.whole_world, sitting.runtime, sitting.minutes, codec, sitting.steps)
    return {"vae": codec}


def _tower(sitting: FinetuneRun) -> dict[str, Any]:
    text = sitting.load(CLIPTextModel, "text_encoder").eval()
    image = sitting.load(CLIPVisionModelWithProjection, "image_encoder")
    projection = load_file(sitting.start / "text_projection.safetensors")["text_projection.weight"]
    image, projection = image_encoder.train(
        sitting.whole_world,
        sitting.runtime,
        sitting.minutes,
        text,
        sitting.tokenizer,
        sitting.steps,
        (image, projection.float()),
    )
    return {"image": image, "text_projection": projection}


def _fast(sitting: FinetuneRun) -> dict[str, Any]:
    teacher = distill.Teacher(
        sitting.recipe,
        sitting.runtime,
        sitting.load(CLIPTextModel, "text_encoder"),
        sitting.tokenizer,
        sitting.load(UNet2DConditionModel, "unet"),
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


def finetune(stage: str, sitting: FinetuneRun, output: Path) -> None:
    """One stage of a finished model, and the whole model as a folder again."""
    sitting.runtime.log(
        f"start: {sitting.runtime.device}, bf16 {sitting.runtime.use_bf16}, {stage}, from {sitting.start}"
    )
    changed = STAGES[stage](sitting)
    if output.resolve() != sitting.start.resolve():
        shutil.copytree(sitting.start, output, dirs_exist_ok=True)
    if _UNDER_FAST & changed.keys() and (output / FAST).exists():
        (output / FAST).unlink()
        sitting.runtime.log(f"{FAST} was made for what was there before: make it anew (--stage fast)")
    export(output, **changed)
