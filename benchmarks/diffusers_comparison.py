"""The tables of docs/measurements.md: `python -m benchmarks.diffusers_comparison`.

Cold start against a plain diffusers script, seconds for an image, sizes, and parity with the pipelines of diffusers for
every sampler. Runs on the CPU. Nothing else should run at the same time.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import diffusekit
from diffusekit.models import MINI

PLAIN = """
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained({folder!r})
pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
pipe.set_progress_bar_config(disable=True)
noise = torch.randn(1, pipe.unet.config.in_channels, 16, 16, generator=torch.Generator().manual_seed(7))
pipe("A beautiful galaxy", num_inference_steps=20, guidance_scale=3.0, latents=noise).images[0].save({out!r})
"""


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def cold_start(rounds: int = 5) -> None:
    """Measure the same image from a cold start, with diffusekit and with plain diffusers in turn."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "x.png")
        words = ("generate", "A beautiful galaxy", "--seed", "7", "--device", "cpu", "--overwrite", "-o", out)
        ours = [sys.executable, "-m", "diffusekit", *words]
        theirs = [sys.executable, "-c", PLAIN.format(folder=str(MINI), out=str(Path(folder) / "y.png"))]
        times: dict[str, list[float]] = {"diffusekit generate": [], "plain diffusers script": []}
        for _ in range(rounds):
            times["diffusekit generate"].append(seconds(ours))
            times["plain diffusers script"].append(seconds(theirs))
        help_times = [seconds([sys.executable, "-m", "diffusekit", "--help"]) for _ in range(rounds)]
    print("\n| cold start, 20 steps | median s | fastest s |\n|---|--:|--:|")
    for name, values in times.items():
        print(f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} |")
    a, b = (statistics.median(values) for values in times.values())
    print(f"| ratio | {a / b:.2f} | {min(times['diffusekit generate']) / min(times['plain diffusers script']):.2f} |")
    print(f"\n`diffusekit --help`: median {statistics.median(help_times):.2f} s.")


def warm(rounds: int = 10) -> None:
    """Measure an image of 20 guided steps and its decoding, with the model in memory."""
    diffusekit.generate("a star", device="cpu", steps=2)
    times = []
    for seed in range(rounds):
        started = time.perf_counter()
        diffusekit.generate("A beautiful galaxy", seed=seed, device="cpu")
        times.append(time.perf_counter() - started)
    print(f"\n20 guided steps and decode, warm: median {statistics.median(times):.2f} s, fastest {min(times):.2f} s.")


def parity() -> None:
    """Compare the latents with those of the diffusers pipeline, for every sampler."""
    from diffusers import StableDiffusionPipeline

    from diffusekit import models, schedule
    from tests.test_parity import STEPS, difference

    model, pipe = models.load("mini", "cpu"), StableDiffusionPipeline.from_pretrained(MINI)
    pipe.set_progress_bar_config(disable=True)
    print(f"\nLargest difference of the latents after {STEPS} steps:")
    print("\n| sampler | guidance 1 | guidance 5 |\n|---|--:|--:|")
    for name in schedule.SAMPLERS:
        print(f"| {name} | {difference(model, pipe, name, 1.0):.1e} | {difference(model, pipe, name, 5.0):.1e} |")


def sizes() -> None:
    """Count the parameters and bytes of every weight file of `mini`."""
    from safetensors.torch import load_file

    print("\n| part | parameters | file |\n|---|--:|--:|")
    for path in sorted(MINI.rglob("*.safetensors")):
        count = sum(tensor.numel() for tensor in load_file(path).values())
        print(f"| {path.relative_to(MINI)} | {count / 1e6:.2f} M | {path.stat().st_size / 1e6:.2f} MB |")
    total = sum(p.stat().st_size for p in MINI.rglob("*") if p.is_file())
    print(f"| everything | | {total / 1e6:.2f} MB |")


def main() -> None:
    print(json.dumps({name: version(name) for name in ("diffusekit", "torch", "diffusers", "transformers")}))
    cold_start()
    warm()
    sizes()
    parity()


if __name__ == "__main__":
    main()
