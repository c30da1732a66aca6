"""Train `mini` from nothing: `python -m training.mini --minutes 95`. Grade it: `python -m training.mini grade`.

Stages: tokenizer, VAE, latents, text encoder, U-Net, the VAE's decoder, CLIP tower, export. Each keeps its state in
`--work` and goes on from there when the command is given again. `--from FOLDER` is another sitting of a finished
model: its U-Net (or `--stage decoder`) goes on, on pictures drawn with another `--seed`; all else stays as it is.
"""

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from . import clip, data, grade, reader, tokenizer, unet, vae
from .export import export
from .recipe import RECIPES, Bench, Clock, Recipe
from .world import WHOLE


def main() -> None:
    if sys.argv[1:2] == ["grade"]:
        grade.main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        prog="python -m training.mini", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--minutes", type=float, default=95, help="wall-clock time for all training stages together"
    )
    parser.add_argument(
        "--steps", type=int, help="steps of every stage instead of minutes: exactly repeatable"
    )
    parser.add_argument("--recipe", choices=RECIPES, help="default: gpu if there is one, else cpu")
    parser.add_argument(
        "--pictures", type=int, help="render so many pictures instead of the recipe's number"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("build/mini"), help="where stages keep their state"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("diffusekit/mini"), help="the finished model's folder"
    )
    parser.add_argument(
        "--from",
        dest="start",
        type=Path,
        metavar="FOLDER",
        help="a finished model of which one part goes on",
    )
    parser.add_argument(
        "--stage",
        choices=("unet", "decoder"),
        default="unet",
        help="which part of --from goes on (default: unet)",
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = RECIPES[options.recipe or ("gpu" if device.type == "cuda" else "cpu")]
    if options.pictures:
        recipe = _with_pictures(recipe, options.pictures)
    bench = Bench(device, options.work, options.seed)
    (further if options.start else train)(options, recipe, bench)
    bench.say(f"done: {options.output}")


def train(options: argparse.Namespace, recipe: Recipe, bench: Bench) -> None:
    """Every stage, from nothing."""
    words = tokenizer.build(options.work / "tokenizer")
    bench.say(
        f"start: {bench.device}, bf16 {bench.bf16}, {len(words)} tokens, {len(recipe.part.subjects)} subjects"
    )
    minutes, steps = options.minutes, options.steps
    codec = vae.train(recipe, bench, minutes * recipe.vae_share, steps)
    latents = data.encode(recipe, bench, codec, words)
    text = reader.train(recipe, bench, minutes * recipe.reader_share, words, steps)
    learner = unet.Learner(recipe, bench, text, words)
    text, net = unet.train(learner, Clock(minutes * recipe.unet_share, steps), latents, codec)
    vae.polish(recipe, bench, minutes * recipe.decoder_share, codec, steps)
    image, projection = clip.train(recipe, bench, minutes * recipe.clip_share, text, words, steps)
    export(
        options.output,
        tokenizer=words,
        text=text,
        unet=net,
        vae=codec,
        image=image,
        text_projection=projection,
    )


def further(options: argparse.Namespace, recipe: Recipe, bench: Bench) -> None:
    """One more sitting for the U-Net or the VAE's decoder of a finished model."""
    start: Path = options.start
    fp32 = {"torch_dtype": torch.float32}
    codec = AutoencoderKL.from_pretrained(start / "vae", **fp32).to(bench.device).eval()
    bench.say(f"start: {bench.device}, bf16 {bench.bf16}, {options.stage}, from {start}")
    if options.stage == "decoder":
        every_style = replace(recipe, part=WHOLE)
        vae.polish(every_style, bench, options.minutes, codec, options.steps)
        changed = {"vae": codec}
    else:
        words = CLIPTokenizer.from_pretrained(start / "tokenizer")
        text = CLIPTextModel.from_pretrained(start / "text_encoder", **fp32)
        net = UNet2DConditionModel.from_pretrained(start / "unet", **fp32)
        latents = data.encode(recipe, bench, codec, words)
        learner = unet.Learner(replace(recipe, text_until=0.0), bench, text, words, net)
        _, net = unet.train(learner, Clock(options.minutes, options.steps), latents, codec)
        changed = {"unet": net}
    if options.output.resolve() != start.resolve():
        shutil.copytree(start, options.output, dirs_exist_ok=True)
    export(options.output, **changed)


def _with_pictures(recipe: Recipe, count: int) -> Recipe:
    return replace(recipe, pictures=count, vae_pictures=min(recipe.vae_pictures, count))


if __name__ == "__main__":
    main()
