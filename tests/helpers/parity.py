"""The same prompt and seed through `stream` and through a pipeline of diffusers: how far the latents are apart."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from diffusekit import defaults, images, latents, models, schedule, stream

PROMPT, NEGATIVE = "a red cat on the grass!", "a dog"
SEED, STEPS, STRENGTH = 5, 4, 0.75
LIMIT = 1e-4
TASKS = ("text", "image")


@dataclass(frozen=True, eq=False)
class Pair:
    """One model, loaded by us and by diffusers. `pipes` has the pipeline for each task."""

    model: models.Model
    pipes: dict[str, Any]

    def samplers(self, task: str) -> list[str]:
        """Those that diffusers' pipeline takes: that of latent consistency models takes one."""
        own = type(self.pipes[task]).__name__
        return ["lcm"] if own == "LatentConsistencyModelPipeline" else list(schedule.SAMPLERS)


def load_pair(folder: Path) -> Pair:
    """Load a folder twice. The pipelines of diffusers for all tasks share one set of weights.

    diffusers' own pipeline for latent consistency models from an image spreads all steps over the rest of the noise
    schedule. Here, as in its other pipelines, a start image takes the last steps, so it is compared with these.
    """
    from diffusers import DiffusionPipeline, StableDiffusionImg2ImgPipeline, StableDiffusionXLImg2ImgPipeline

    text = DiffusionPipeline.from_pretrained(folder)
    is_xl = hasattr(text, "text_encoder_2")
    image = StableDiffusionXLImg2ImgPipeline if is_xl else StableDiffusionImg2ImgPipeline
    wanted = inspect.signature(image).parameters
    parts = {name: part for name, part in text.components.items() if name in wanted}
    pipes: dict[str, Any] = {
        "text": text,
        "image": image(**parts, **({} if is_xl else {"requires_safety_checker": False})),
    }
    for pipe in pipes.values():
        pipe.set_progress_bar_config(disable=True)
    return Pair(models.load(str(folder), "cpu"), pipes)


def start_pixels(size: int) -> Image.Image:
    """A noisy picture, always the same."""
    pixels = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    return images.to_pil(pixels * 2 - 1)[0]


def difference(
    pair: Pair,
    sampler: str,
    *,
    task: str = "text",
    guidance: float = 5.0,
    negative: str = NEGATIVE,
    steps: int = STEPS,
    **options: Any,
) -> float:
    """Return the largest difference of the last latents, ours against those of diffusers' pipeline.

    `options` are other settings of `stream`. diffusers gets a scheduler with the same noise schedule and timesteps.
    """
    model, pipe, image = pair.model, pair.pipes[task], start_pixels(pair.model.native_size)
    start: dict[str, Any] = {"image": image, "strength": STRENGTH} if task == "image" else {}
    options |= {"steps": steps, "guidance_scale": guidance, "sampler": sampler}
    generation = stream(PROMPT, model=model, seed=SEED, negative_prompt=negative, **options, **start)
    *_, last = generation
    pipe.scheduler = schedule.make_scheduler(sampler, defaults.noise_config(generation.settings, model))
    theirs: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": guidance}
    if "negative_prompt" in inspect.signature(pipe.__call__).parameters:
        theirs["negative_prompt"] = negative or None
    if "guidance_rescale" in options:
        theirs["guidance_rescale"] = options["guidance_rescale"]
    if task == "image":
        theirs |= {"image": latents.encode(model, images.to_tensor(image)[None]), "strength": STRENGTH}
    else:
        theirs |= {"width": image.width, "height": image.height}
    found = pipe(PROMPT, generator=torch.Generator().manual_seed(SEED), output_type="latent", **theirs).images
    return (last.x_next - found).abs().max().item()
