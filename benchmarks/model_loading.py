"""Measure how long a model takes to load and how much memory that needs, ours beside diffusers' `from_pretrained`.

Random float16 weights at true size are written once. Each load is a fresh process, the two take turns, and the page
cache is warm. `python benchmarks/model_loading.py --size sdxl --rounds 3`
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

XL_UNET = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
}
UNETS = {
    "sd15": {"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64},
    "sdxl": XL_UNET,
    "tiny": {"block_out_channels": (32, 64), "cross_attention_dim": 32, "attention_head_dim": 8, "sample_size": 8}
    | {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")}
    | {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")},
}
LOAD = """
import json, resource, sys, time
import torch
started = time.perf_counter()
{code}
seconds = time.perf_counter() - started
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""
# The libraries are imported before the clock starts, for both.
OURS = """import diffusers, transformers
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusekit import models
started = time.perf_counter()
model = models.load(sys.argv[1], "cpu", sys.argv[2])"""
THEIRS = """from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusekit import models
kind = StableDiffusionXLPipeline if sys.argv[3] == "sdxl" else StableDiffusionPipeline
started = time.perf_counter()
pipe = kind.from_pretrained(sys.argv[1], torch_dtype=getattr(torch, sys.argv[2]), local_files_only=True)"""


def write(folder: Path, size: str) -> None:
    """Write a model with random float16 weights."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
    from diffusers import UNet2DConditionModel as UNet
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    from diffusekit.model_files import CLIP_VOCABULARY

    torch.set_default_dtype(torch.float16)
    vocabulary = (str(CLIP_VOCABULARY / "vocab.json"), str(CLIP_VOCABULARY / "merges.txt"))
    width, channels = (32, (32, 64)) if size == "tiny" else (768, (128, 256, 512, 512))
    text = CLIPTextConfig(
        vocab_size=49_408, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=12, num_attention_heads=4
    )
    count = len(channels)
    parts = {
        "tokenizer": CLIPTokenizer(*vocabulary),
        "text_encoder": CLIPTextModel(text),
        "unet": UNet(**UNETS[size]),
        "scheduler": DDIMScheduler(beta_schedule="scaled_linear"),
        "vae": AutoencoderKL(
            block_out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * count,
            up_block_types=("UpDecoderBlock2D",) * count,
            layers_per_block=2,
            latent_channels=4,
        ),
    }
    if size == "sdxl":
        second = CLIPTextConfig(
            vocab_size=49_408,
            hidden_size=1280,
            intermediate_size=5120,
            num_hidden_layers=32,
            num_attention_heads=20,
            projection_dim=1280,
            hidden_act="gelu",
        )
        more = {"tokenizer_2": CLIPTokenizer(*vocabulary, pad_token="!")}
        more["text_encoder_2"] = CLIPTextModelWithProjection(second)
        StableDiffusionXLPipeline(**parts, **more, add_watermarker=False).save_pretrained(folder)
    else:
        checker = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        StableDiffusionPipeline(**parts, **checker).save_pretrained(folder)


def measure(code: str, *arguments: str) -> tuple[float, float]:
    """Seconds and peak bytes of one load in a fresh process."""
    command = [sys.executable, "-c", LOAD.format(code=code), *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, peak = json.loads(output.splitlines()[-1])
    return seconds, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=UNETS, default="sd15")
    parser.add_argument("--dtype", choices=["float16", "float32", "bfloat16"], default="float16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="Where the model is written; it is kept and used again.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary, "model")
        if not (folder / "model_index.json").is_file():
            write(folder, options.size)
        found: dict[str, list[tuple[float, float]]] = {"diffusekit": [], "diffusers": []}
        for number in range(options.rounds + 1):
            for name, code in (("diffusekit", OURS), ("diffusers", THEIRS)):
                measured = measure(code, str(folder), options.dtype, options.size)
                if number:  # the first round fills the page cache
                    found[name].append(measured)
    for name, rows in found.items():
        seconds, peaks = zip(*rows, strict=True)
        print(
            f"{name:<11} {statistics.median(seconds):6.2f} s ({min(seconds):.2f} to {max(seconds):.2f})  "
            f"peak {statistics.median(peaks) / 2**30:.2f} GiB"
        )


if __name__ == "__main__":
    main()
