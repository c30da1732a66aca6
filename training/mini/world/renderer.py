"""Render scenes with their captions on every core.

Without torch, which each process of the pool would have to import.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from random import Random

import numpy as np

from .captions import caption
from .scenes import Domain, Instance, draw_with_instances, sample

CAPTIONS_PER_IMAGE = 4


@dataclass
class Chunk:
    """Images (N, side, side, 3) uint8, four captions of each, and the instances that each shows."""

    images: np.ndarray
    captions: list[list[str]]
    instances: list[list[Instance]]


def _render(domain: Domain, start: int, count: int, seed: int, side: int) -> Chunk:
    chunk = Chunk(np.empty((count, side, side, 3), np.uint8), [], [])
    for i in range(count):
        scene, rng = sample(domain, start + i, seed), Random(f"say {seed}/{start + i}")
        image, instances = draw_with_instances(scene, start + i, side)
        chunk.images[i] = np.asarray(image)
        chunk.captions.append([caption(scene, rng) for _ in range(CAPTIONS_PER_IMAGE)])
        chunk.instances.append(instances)
    return chunk


def render(domain: Domain, count: int, seed: int, side: int, chunk: int = 500) -> Iterator[Chunk]:
    """Draw `count` scenes of a domain, on every core, and yield them in chunks, in order."""
    starts = range(0, count, chunk)
    with ProcessPoolExecutor(mp_context=get_context("forkserver")) as pool:
        futures = [pool.submit(_render, domain, s, min(chunk, count - s), seed, side) for s in starts]
        for future in futures:
            yield future.result()
