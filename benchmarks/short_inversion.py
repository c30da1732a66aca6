"""How long ten steps of inversion take at 512 pixels on a CPU: `python -m benchmarks.short_inversion [--divide 8]`.

The model has random weights and the shape of Stable Diffusion 1.5, with the channels of U-Net and VAE divided. Its text
encoder has the real size.
"""

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from diffusekit.inversion.trainer import Inversion
from diffusekit.settings import InvertSettings
from tests.helpers.inversions import pictures
from tests.helpers.random_models import CROSS_DOWN, CROSS_UP, DDIM, NOISE, text_encoder, tokenizer


def write_model(folder: Path, divide: int) -> Path:
    """Write a model of 512 pixels whose channels are those of Stable Diffusion 1.5, divided."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=tuple(channels // divide for channels in (320, 640, 1280, 1280)),
        norm_num_groups=32 // divide,
        down_block_types=(CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, "DownBlock2D"),
        up_block_types=("UpBlock2D", CROSS_UP, CROSS_UP, CROSS_UP),
        cross_attention_dim=768,
        attention_head_dim=8,
    )
    vae = AutoencoderKL(
        block_out_channels=tuple(channels // divide for channels in (128, 256, 512, 512)),
        norm_num_groups=32 // divide,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )
    parts: dict[str, Any] = {
        "tokenizer": tokenizer(),
        "text_encoder": text_encoder(width=768, layers=12, activation="quick_gelu"),
        "unet": unet,
        "vae": vae,
        "scheduler": DDIMScheduler(**NOISE | DDIM),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    StableDiffusionPipeline(**parts).save_pretrained(folder)
    return folder


def measure(model: Path, folder: Path, steps: int) -> dict[str, Any]:
    """Train, and return wall and processor seconds of preparing, of the steps, and of validation at the end."""
    settings = InvertSettings(
        pictures=str(pictures(folder / "three", side=600)),
        model=str(model),
        init="cat",
        steps=steps,
        device="cpu",
        clip="",
    )
    clocks = [_clocks()]
    inversion = Inversion(settings, folder / "out")
    clocks.append(_clocks())
    for progress in inversion:
        print(f"step {progress.step}: {_clocks()[0] - clocks[0][0]:.0f} s", file=sys.stderr)
        if progress.step == steps - 1:
            clocks.append(_clocks())
    clocks.append(_clocks())
    inversion.close()
    seconds = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(clocks)]
    names = ("prepare", "steps", "last_step_validation_and_report")
    found = {
        name: {"wall": round(wall), "processor": round(cpu)} for name, (wall, cpu) in zip(names, seconds, strict=True)
    }
    images = inversion.plan.image_count * inversion.plan.validations(steps)
    return {"steps": steps, "samples": steps * settings.batch, "validation_images": images, **found}


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.short_inversion", description=__doc__)
    parser.add_argument("--divide", type=int, default=8, help="What the channels of U-Net and VAE are divided by.")
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        found = measure(write_model(folder / "model", options.divide), folder, options.steps)
    print(json.dumps({"divide": options.divide, "cores": os.cpu_count(), **found}))


if __name__ == "__main__":
    main()
