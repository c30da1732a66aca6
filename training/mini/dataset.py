"""The training set: images encoded as latents once, their captions as token ids.

Every image has four captions. A training step takes one of them, or an empty one. The cells of the latents that show a
thing are stored too: a U-Net learns backgrounds in minutes and shapes in hours, and the loss can be weighted there.
"""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from .config import Recipe
from .runtime import Runtime
from .tokenizer import LENGTH
from .world.renderer import CAPTIONS_PER_IMAGE, render
from .world.scenes import Instance


def foreground_mask(instances: list[Instance], n: int) -> np.ndarray:
    """Return the cells of an (n, n) latent that show a thing. All of them if there is none, or a galaxy."""
    if not instances or instances[0].thing.subject == "galaxy":
        return np.ones((n, n), bool)
    center = (np.arange(n) + 0.5) / n
    inside = [
        (abs(center[None] - i.x) < 1.1 * i.radius) & (abs(center[:, None] - i.y) < 1.1 * i.radius) for i in instances
    ]
    return np.any(inside, axis=0)


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """Convert (N, H, W, 3) uint8 to (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Return token ids (N, 77), padded to the full length as Stable Diffusion does."""
    return tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids


@dataclass
class LatentDataset:
    """The encoded training set."""

    mean: torch.Tensor  # (N, C, h, w) fp16, of the latents of each image
    std: torch.Tensor  # (N, C, h, w) fp16
    ids: torch.Tensor  # (N, 4, 77) token ids
    things: torch.Tensor  # (N, h, w) bool, true where the image shows a thing


def encode(recipe: Recipe, runtime: Runtime, vae: AutoencoderKL, tokenizer: CLIPTokenizer) -> LatentDataset:
    """Render and encode the training set, or load it from the work folder."""
    saved = runtime.load("latents")
    if saved is not None:
        return LatentDataset(**saved)
    means, stds, ids, masks = [], [], [], []
    for chunk in render(recipe.domain, recipe.images, runtime.seed + 1, recipe.side):
        for start in range(0, len(chunk.images), 50):
            with torch.no_grad(), runtime.autocast():
                posterior = vae.encode(to_tensor(chunk.images[start : start + 50]).to(runtime.device)).latent_dist
            means.append(posterior.mean.half())
            stds.append(posterior.std.half())
        flat = tokenize(tokenizer, [text for texts in chunk.captions for text in texts])
        ids.append(flat.view(-1, CAPTIONS_PER_IMAGE, LENGTH).short())
        size = means[-1].shape[-1]
        masks += [torch.from_numpy(foreground_mask(instances, size)) for instances in chunk.instances]
    data = LatentDataset(
        torch.cat(means), torch.cat(stds), torch.cat(ids).to(runtime.device), torch.stack(masks).to(runtime.device)
    )
    runtime.save("latents", vars(data))
    runtime.log(f"latents: {len(data.mean)} images, std {data.mean.float().std():.3f}")
    return data
