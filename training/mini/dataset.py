"""Pictures and captions for training: rendered on every core, encoded once, kept as latents.

Four captions are kept for every picture; a step takes one of them, or none. Where the things of a scene
lie is kept too: a U-Net has backgrounds in minutes and shapes in hours, and may be told where to look.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from .config import Recipe
from .runtime import Runtime
from .tokenizer import LENGTH
from .world.captions import caption
from .world.scenes import Domain, Instance, draw_with_instances, sample

CAPTIONS_PER_IMAGE = 4


@dataclass
class Chunk:
    """Rendered pictures (N, side, side, 3) uint8, four captions of each, and where their things lie."""

    images: np.ndarray
    captions: list[list[str]]
    instances: list[list[Instance]]


def _render(part: Domain, start: int, count: int, seed: int, side: int) -> Chunk:
    chunk = Chunk(np.empty((count, side, side, 3), np.uint8), [], [])
    for i in range(count):
        scene, rng = sample(part, start + i, seed), Random(f"say {seed}/{start + i}")
        picture, spots = draw_with_instances(scene, start + i, side)
        chunk.images[i] = np.asarray(picture)
        chunk.captions.append([caption(scene, rng) for _ in range(CAPTIONS_PER_IMAGE)])
        chunk.instances.append(spots)
    return chunk


def render(part: Domain, count: int, seed: int, side: int, chunk: int = 500) -> Iterator[Chunk]:
    """`count` scenes of a part of the world, drawn on every core, in chunks, in order."""
    starts = range(0, count, chunk)
    with ProcessPoolExecutor(mp_context=get_context("forkserver")) as pool:
        ahead = [pool.submit(_render, part, s, min(chunk, count - s), seed, side) for s in starts]
        for future in ahead:
            yield future.result()


def foreground_mask(spots: list[Instance], n: int) -> np.ndarray:
    """Which cells of an (n, n) latent show a thing; all of them when there is none, or a galaxy."""
    if not spots or spots[0].thing.subject == "galaxy":
        return np.ones((n, n), bool)
    middle = (np.arange(n) + 0.5) / n
    near = [(abs(middle[None] - s.x) < 1.1 * s.radius) & (abs(middle[:, None] - s.y) < 1.1 * s.radius) for s in spots]
    return np.any(near, axis=0)


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """(N, 77) token ids, padded to the full length as Stable Diffusion does."""
    return tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids


def encode(recipe: Recipe, runtime: Runtime, vae: AutoencoderKL, tokenizer: CLIPTokenizer) -> dict[str, torch.Tensor]:
    """The training set: `mean` and `std` (N, C, h, w) fp16 of every picture's latents, `ids` (N, 4, 77),
    and `things` (N, h, w), true where something stands."""
    kept = runtime.load("latents")
    if kept is not None:
        return kept
    means, stds, ids, where = [], [], [], []
    for chunk in render(recipe.domain, recipe.images, runtime.seed + 1, recipe.side):
        for start in range(0, len(chunk.images), 50):
            with torch.no_grad(), runtime.autocast():
                posterior = vae.encode(to_tensor(chunk.images[start : start + 50]).to(runtime.device)).latent_dist
            means.append(posterior.mean.half())
            stds.append(posterior.std.half())
        flat = tokenize(tokenizer, [c for group in chunk.captions for c in group])
        ids.append(flat.view(-1, CAPTIONS_PER_IMAGE, LENGTH).short())
        where += [torch.from_numpy(foreground_mask(spots, means[-1].shape[-1])) for spots in chunk.instances]
    found = {
        "mean": torch.cat(means),
        "std": torch.cat(stds),
        "ids": torch.cat(ids).to(runtime.device),
        "things": torch.stack(where).to(runtime.device),
    }
    runtime.save("latents", found)
    runtime.log(f"latents: {len(found['mean'])} pictures, std {found['mean'].float().std():.3f}")
    return found
