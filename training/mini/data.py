"""Pictures and captions for training: rendered on every core, encoded once, kept as latents.

Four captions are kept for every picture; a step takes one of them, or none.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from .captions import caption
from .recipe import Bench, Recipe
from .tokenizer import LENGTH
from .world import Part, draw, sample

CAPTIONS = 4


def _render(
    part: Part, start: int, count: int, seed: int, side: int
) -> tuple[np.ndarray, list[list[str]]]:
    pictures = np.empty((count, side, side, 3), np.uint8)
    captions = []
    for i in range(count):
        scene, rng = sample(part, start + i, seed), Random(f"say {seed}/{start + i}")
        pictures[i] = np.asarray(draw(scene, start + i, side))
        captions.append([caption(scene, rng) for _ in range(CAPTIONS)])
    return pictures, captions


def render(
    part: Part, count: int, seed: int, side: int, chunk: int = 500
) -> Iterator[tuple[np.ndarray, list[list[str]]]]:
    """Pictures (N, side, side, 3) uint8 and their captions, in chunks, in order."""
    starts = range(0, count, chunk)
    with ProcessPoolExecutor(mp_context=get_context("forkserver")) as pool:
        ahead = [pool.submit(_render, part, s, min(chunk, count - s), seed, side) for s in starts]
        for future in ahead:
            yield future.result()


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def tokens(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """(N, 77) token ids, padded to the full length as Stable Diffusion does."""
    return tokenizer(
        texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    ).input_ids


def encode(
    recipe: Recipe, bench: Bench, vae: AutoencoderKL, tokenizer: CLIPTokenizer
) -> dict[str, torch.Tensor]:
    """The training set: `mean` and `std` (N, 4, h, w) fp16 of every picture's latents, `ids` (N, 4, 77)."""
    kept = bench.load("latents")
    if kept is not None:
        return kept
    means, stds, ids = [], [], []
    for pictures, captions in render(recipe.part, recipe.pictures, bench.seed + 1, recipe.side):
        for start in range(0, len(pictures), 50):
            with torch.no_grad(), bench.autocast():
                posterior = vae.encode(
                    to_tensor(pictures[start : start + 50]).to(bench.device)
                ).latent_dist
            means.append(posterior.mean.half())
            stds.append(posterior.std.half())
        flat = tokens(tokenizer, [c for group in captions for c in group])
        ids.append(flat.view(-1, CAPTIONS, LENGTH).short())
    found = {
        "mean": torch.cat(means),
        "std": torch.cat(stds),
        "ids": torch.cat(ids).to(bench.device),
    }
    bench.save("latents", found)
    bench.say(f"latents: {len(found['mean'])} pictures, std {found['mean'].float().std():.3f}")
    return found
