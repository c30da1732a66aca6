"""The table of docs/batch.md: `python -m benchmarks.batch_throughput`.

Makes 200 images of `mini` from 200 prompts in three ways: `diffusekit batch`, a loop over diffusers' pipeline, and
diffusers' pipeline in batches of 8. The ways take turns, 40 prompts each. Every way writes PNG files. Runs on the CPU,
and nothing else should run at the same time.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from diffusekit import schedule
from diffusekit.batch import ImageBatch
from diffusekit.models import MINI
from diffusekit.prompt_list import list_prompts
from diffusekit.settings import GenerateSettings

PROMPTS, ROUND, STEPS, GUIDANCE = 200, 40, 20, 3.0
COLORS, THINGS, PLACES = ("red", "blue", "green", "yellow"), ("cat", "dog", "boat", "star", "house"), ("beach", "grass")


def prompts() -> list[str]:
    words = [f"a {color} {thing} on the {place}" for color in COLORS for thing in THINGS for place in PLACES]
    return [f"{words[i % len(words)]}, number {i}" for i in range(PROMPTS)]


def ours(texts: Sequence[str], folder: Path) -> None:
    defaults = GenerateSettings(device="cpu", steps=STEPS, guidance_scale=GUIDANCE)
    rows = list_prompts(((i, {"prompt": text}) for i, text in enumerate(texts)), defaults)
    assert all(outcome.status == "made" for outcome in ImageBatch(rows, folder) if outcome is not None)


def plain_diffusers(pipe: Any, size: int) -> Callable[[Sequence[str], Path], None]:
    """Return diffusers' own way, `size` prompts in each call of the pipeline."""

    def make(texts: Sequence[str], folder: Path) -> None:
        folder.mkdir()
        for first in range(0, len(texts), size):
            some = list(texts[first : first + size])
            images = pipe(some, num_inference_steps=STEPS, guidance_scale=GUIDANCE).images
            for number, image in enumerate(images, first):
                image.save(folder / f"{number}.png")

    return make


def main() -> None:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(MINI)
    pipe.scheduler = schedule.make_scheduler("dpm++_2m", dict(pipe.scheduler.config))
    pipe.set_progress_bar_config(disable=True)
    ways = {
        "diffusekit batch": ours,
        "diffusers, one by one": plain_diffusers(pipe, 1),
        "diffusers, batches of 8": plain_diffusers(pipe, 8),
    }
    texts = prompts()
    times: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as root:
        for name, make in ways.items():
            make(texts[:8], Path(root, f"warm-up {name}"))
        for first in range(0, PROMPTS, ROUND):
            for name, make in ways.items():
                started = time.perf_counter()
                make(texts[first : first + ROUND], Path(root, f"{first} {name}"))
                times[name].append(time.perf_counter() - started)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| way | 200 images, s | images a second | of our time, by rounds |\n|---|--:|--:|---|")
    for name, values in times.items():
        ratios = [theirs / own for theirs, own in zip(values, times["diffusekit batch"], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {name} | {sum(values):.1f} | {PROMPTS / sum(values):.2f} | {spread} |")


if __name__ == "__main__":
    main()
