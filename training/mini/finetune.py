"""Fine-tune one network of a finished model. All other networks stay as they are.

A text encoder keeps its states for all captions except pairs, and an autoencoder keeps its latents. After either of
them the U-Net has to be fine-tuned too, because it reads those states and those latents. After a text encoder the
image encoder as well, because the two have to agree.
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

from diffusekit.hub import FAST_LORA

from . import dataset, distill, image_encoder, text_encoder, unet, vae, widen
from .config import Recipe
from .export import export
from .runtime import Runtime, TimeBudget
from .world.scenes import WHOLE_WORLD


@dataclass(frozen=True)
class FinetuneRun:
    """The model to start from, the recipe, and the time."""

    start: Path
    recipe: Recipe
    runtime: Runtime
    minutes: float
    steps: int | None = None

    def load(self, network: type, name: str) -> Any:
        """Load a network of the model, in float32."""
        return network.from_pretrained(self.start / name, torch_dtype=torch.float32).to(self.runtime.device)  # type: ignore[attr-defined]

    @property
    def tokenizer(self) -> CLIPTokenizer:
        return CLIPTokenizer.from_pretrained(self.start / "tokenizer")

    @property
    def whole_world(self) -> Recipe:
        """The same recipe with every subject and style."""
        return replace(self.recipe, domain=WHOLE_WORLD)


def _text_encoder(run: FinetuneRun) -> dict[str, Any]:
    text = run.load(CLIPTextModel, "text_encoder")
    return {"text": text_encoder.train(run.recipe, run.runtime, run.minutes, run.tokenizer, run.steps, text)}


def _unet(run: FinetuneRun) -> dict[str, Any]:
    recipe, runtime = replace(run.recipe, text_training_share=0.0), run.runtime
    autoencoder = run.load(AutoencoderKL, "vae").eval()
    latents = dataset.encode(recipe, runtime, autoencoder, run.tokenizer)
    text = run.load(CLIPTextModel, "text_encoder")
    net = run.load(UNet2DConditionModel, "unet")
    trainer = unet.UNetTrainer(recipe, runtime, text, run.tokenizer, net)
    _, net = unet.train(trainer, TimeBudget(run.minutes, run.steps), latents, autoencoder)
    return {"unet": net}


def _vae(run: FinetuneRun) -> dict[str, Any]:
    before = run.load(AutoencoderKL, "vae").eval()
    old_channels, channels = before.config.latent_channels, run.recipe.latent_channels
    autoencoder = widen.widen_vae(before, channels) if channels > old_channels else deepcopy(before)
    vae.finetune(run.whole_world, run.runtime, run.minutes, autoencoder, before, run.steps)
    if channels == old_channels:
        return {"vae": autoencoder}
    return {"vae": autoencoder, "unet": widen.widen_unet(run.load(UNet2DConditionModel, "unet"), channels)}


def _decoder(run: FinetuneRun) -> dict[str, Any]:
    autoencoder = run.load(AutoencoderKL, "vae").eval()
    vae.train_decoder(run.whole_world, run.runtime, run.minutes, autoencoder, run.steps)
    return {"vae": autoencoder}


def _image_encoder(run: FinetuneRun) -> dict[str, Any]:
    text = run.load(CLIPTextModel, "text_encoder").eval()
    image = run.load(CLIPVisionModelWithProjection, "image_encoder")
    projection = load_file(run.start / "text_projection.safetensors")["text_projection.weight"]
    start = image, projection.float()
    image, projection = image_encoder.train(
        run.whole_world, run.runtime, run.minutes, text, run.tokenizer, run.steps, start
    )
    return {"image": image, "text_projection": projection}


def _few_step_lora(run: FinetuneRun) -> dict[str, Any]:
    text, net = run.load(CLIPTextModel, "text_encoder"), run.load(UNet2DConditionModel, "unet")
    teacher = distill.Teacher(run.recipe, run.runtime, text, run.tokenizer, net)
    return {"fast": distill.train(teacher, run.minutes, run.steps)}


STAGES = {
    "text": _text_encoder,
    "vae": _vae,
    "unet": _unet,
    "decoder": _decoder,
    "tower": _image_encoder,
    "fast": _few_step_lora,
}
_INVALIDATE_FAST_LORA = {"text", "unet"}


def finetune(stage: str, run: FinetuneRun, output: Path) -> None:
    """Run one stage and write the whole model, with what the stage changed, to `output`."""
    runtime = run.runtime
    runtime.log(f"start: {runtime.device}, bf16 {runtime.use_bf16}, {stage}, from {run.start}")
    changed = STAGES[stage](run)
    if output.resolve() != run.start.resolve():
        shutil.copytree(run.start, output, dirs_exist_ok=True)
    if _INVALIDATE_FAST_LORA & changed.keys() and (output / FAST_LORA).exists():
        (output / FAST_LORA).unlink()
        runtime.log(f"{FAST_LORA} removed: it was trained for the networks of before. Train it again (--stage fast)")
    export(output, **changed)
