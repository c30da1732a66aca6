"""Train `mini` from nothing: `python -m training.mini --minutes 95`. Grade it: `python -m training.mini grade`.

Stages: tokenizer, VAE, latents, text encoder, U-Net, the VAE's decoder, CLIP tower, export. Each keeps its state in
`--work` and goes on from there when the command is given again. `--from FOLDER` is another sitting of a finished
model: its U-Net (or another `--stage`) goes on, on pictures drawn with another `--seed`; all else stays as it is.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from . import dataset, finetune, image_encoder, text_encoder, tokenizer, unet, vae
from .config import RECIPES, Recipe
from .evaluate import grade
from .export import export
from .runtime import Runtime, TimeBudget


def main() -> None:
    if sys.argv[1:2] == ["grade"]:
        grade.main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="python -m training.mini", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=95, help="wall-clock time for all training stages together")
    parser.add_argument("--steps", type=int, help="steps of every stage instead of minutes: exactly repeatable")
    parser.add_argument("--recipe", choices=RECIPES, help="default: gpu if there is one, else cpu")
    parser.add_argument("--pictures", type=int, help="render so many pictures instead of the recipe's number")
    parser.add_argument("--work", type=Path, default=Path("build/mini"), help="where stages keep their state")
    parser.add_argument("--output", type=Path, default=Path("diffusekit/mini"), help="the finished model's folder")
    parser.add_argument(
        "--from",
        dest="start",
        type=Path,
        metavar="FOLDER",
        help="a finished model of which one part goes on",
    )
    parser.add_argument(
        "--stage",
        choices=finetune.STAGES,
        default="unet",
        help="which part of --from goes on (default: unet)",
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = RECIPES[options.recipe or ("gpu" if device.type == "cuda" else "cpu")]
    if options.pictures:
        recipe = _with_pictures(recipe, options.pictures)
    runtime = Runtime(device, options.work, options.seed)
    if options.start:
        plan = finetune.FinetuneRun(options.start, recipe, runtime, options.minutes, options.steps)
        finetune.finetune(options.stage, plan, options.output)
    else:
        train(options, recipe, runtime)
    runtime.log(f"done: {options.output}")


def train(options: argparse.Namespace, recipe: Recipe, runtime: Runtime) -> None:
    """Every stage, from nothing."""
    words = tokenizer.build(options.work / "tokenizer")
    runtime.log(
        f"start: {runtime.device}, bf16 {runtime.use_bf16}, {len(words)} tokens, {len(recipe.domain.subjects)} subjects"
    )
    minutes, steps = options.minutes, options.steps
    codec = vae.train(recipe, runtime, minutes * recipe.vae_share, steps)
    latents = dataset.encode(recipe, runtime, codec, words)
    text = text_encoder.train(recipe, runtime, minutes * recipe.text_encoder_share, words, steps)
    learner = unet.UNetTrainer(recipe, runtime, text, words)
    text, net = unet.train(learner, TimeBudget(minutes * recipe.unet_share, steps), latents, codec)
    vae.train_decoder(recipe, runtime, minutes * recipe.decoder_share, codec, steps)
    image, projection = image_encoder.train(recipe, runtime, minutes * recipe.image_encoder_share, text, words, steps)
    export(
        options.output,
        tokenizer=words,
        text=text,
        unet=net,
        vae=codec,
        image=image,
        text_projection=projection,
    )


def _with_pictures(recipe: Recipe, count: int) -> Recipe:
    return replace(recipe, images=count, vae_images=min(recipe.vae_images, count))


if __name__ == "__main__":
    main()
