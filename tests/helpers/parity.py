"""The same prompt and seed through `stream` and through a pipeline of diffusers: how far the latents are apart."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from diffusekit import images, latents, models, schedule, stream

PROMPT, NEGATIVE = "a red cat on the grass!", "a dog"
SEED = 5


@dataclass(frozen=True, eq=False)
class Pair:
    """One model, loaded by us and by diffusers. `pipe` has a pipeline for each task."""

    model: models.Model
    pipe: dict[str, Any]

    @property
    def is_latent_consistency(self) -> bool:
        return type(self.pipe["text"]).__name__ == "LatentConsistencyModelPipeline"


def load_pair(folder: Path) -> Pair:
    """Load a folder twice. The pipelines of diffusers for all tasks share one set of weights."""
    from diffusers import AutoPipelineForImage2Image, DiffusionPipeline

    text = DiffusionPipeline.from_pretrained(folder)
    pipes = {"text": text, "image": AutoPipelineForImage2Image.from_pipe(text)}
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
    steps: int = 4,
    syntax: str = "plain",
    rescale: float | None = None,
) -> float:
    """Return the largest difference of the last latents, ours against those of diffusers' pipeline."""
    model, pipe = pair.model, pair.pipe[task]
    side = model.native_size
    start = {"image": start_pixels(side), "strength": 0.6} if task == "image" else {}
    options: Any = {"steps": steps, "guidance_scale": guidance, "sampler": sampler, "prompt_syntax": syntax}
    if rescale is not None:
        options["guidance_rescale"] = rescale
    *_, last = stream(PROMPT, model=model, seed=SEED, negative_prompt=negative, **options, **start)
    pipe.scheduler = schedule.make_scheduler(sampler, model.scheduler_config)
    theirs: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": guidance}
    if not pair.is_latent_consistency:
        theirs["negative_prompt"] = negative or None
    if rescale is not None:
        theirs["guidance_rescale"] = rescale
    if task == "image":
        pixels = images.to_tensor(start_pixels(side))[None]
        theirs |= {"image": latents.encode(model, pixels), "strength": 0.6}
    else:
        theirs |= {"width": side, "height": side}
    generator = torch.Generator().manual_seed(SEED)
    found = pipe(PROMPT, generator=generator, output_type="latent", **theirs).images
    return (last.x_next - found).abs().max().item()
