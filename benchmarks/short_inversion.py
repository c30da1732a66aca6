"""How long ten steps of inversion take at 512 pixels on a CPU: `python -m benchmarks.short_inversion [--divide 4]`.

The model has random weights and the shape of Stable Diffusion 1.5, with the channels of U-Net and VAE divided. Its text
encoder has the real size.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import torch

from diffusekit.cli.main import run
from diffusekit.inversion.validation_plan import choose
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
    StableDiffusionPipeline(
        tokenizer=tokenizer(),
        text_encoder=text_encoder(width=768, layers=12, activation="quick_gelu"),
        unet=unet,
        vae=vae,
        scheduler=DDIMScheduler(**NOISE | DDIM),
        safety_checker=None,
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.short_inversion", description=__doc__)
    parser.add_argument("--divide", type=int, default=4, help="What the channels of U-Net and VAE are divided by.")
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, photos = write_model(folder / "model", options.divide), pictures(folder / "three", side=600)
        settings = InvertSettings(steps=options.steps)
        plan = choose(settings)
        started, cpu = time.perf_counter(), time.process_time()
        arguments = [str(photos), "--model", str(model), "--init", "cat", "--steps", str(options.steps)]
        code = run(["invert", *arguments, "--device", "cpu", "--clip", "", "-o", str(folder / "out"), "--quiet"])
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    images = plan.image_count * plan.validations(options.steps)
    print(
        json.dumps(
            {
                "code": code,
                "divide": options.divide,
                "steps": options.steps,
                "samples": options.steps * settings.batch,
                "validation_images": images,
                "seconds": round(seconds),
                "cpu_seconds": round(cpu),
                "cores": os.cpu_count(),
            }
        )
    )


if __name__ == "__main__":
    main()
