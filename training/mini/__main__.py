"""Train `mini` from scratch: `python -m training.mini --minutes 95`. Grade it: `python -m training.mini grade`.

Stages: tokenizer, VAE, latents, text encoder, U-Net, the VAE's decoder, image encoder, export. Each keeps its state in
`--work`, and the same command continues after an interruption. `--from FOLDER` fine-tunes one network of a finished
model: its U-Net, or another `--stage`, on images drawn with another `--seed`. All other networks stay as they are.
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


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["grade"]:
        grade.main(arguments[1:])
        return
    options = _parse(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = RECIPES[options.recipe or ("gpu" if device.type == "cuda" else "cpu")]
    if options.images:
        recipe = replace(recipe, images=options.images, vae_images=min(recipe.vae_images, options.images))
    runtime = Runtime(device, options.work, options.seed)
    if options.start:
        run = finetune.FinetuneRun(options.start, recipe, runtime, options.minutes, options.steps)
        finetune.finetune(options.stage, run, options.output)
    else:
        train(recipe, runtime, options.output, minutes=options.minutes, steps=options.steps)
    runtime.log(f"done: {options.output}")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.mini", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--minutes", type=float, default=95, help="wall-clock time of all training stages together")
    add("--steps", type=int, help="steps of every stage instead of minutes: exactly repeatable")
    add("--recipe", choices=RECIPES, help="default: gpu if there is one, else cpu")
    add("--images", "--pictures", type=int, help="number of images to render; default: as the recipe says")
    add("--work", type=Path, default=Path("build/mini"), help="where the stages keep their state")
    add("--output", type=Path, default=Path("diffusekit/mini"), help="the folder of the finished model")
    add("--from", dest="start", type=Path, metavar="FOLDER", help="a finished model to fine-tune")
    add("--stage", choices=finetune.STAGES, default="unet", help="the network of --from to train (default: unet)")
    add("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def train(recipe: Recipe, runtime: Runtime, output: Path, *, minutes: float, steps: int | None = None) -> None:
    """Run every stage, from scratch, and write the model to `output`."""
    clip_tokenizer = tokenizer.build(runtime.work / "tokenizer")
    size = f"{len(clip_tokenizer)} tokens, {len(recipe.domain.subjects)} subjects"
    runtime.log(f"start: {runtime.device}, bf16 {runtime.use_bf16}, {size}")
    autoencoder = vae.train(recipe, runtime, minutes * recipe.vae_share, steps)
    latents = dataset.encode(recipe, runtime, autoencoder, clip_tokenizer)
    text = text_encoder.train(recipe, runtime, minutes * recipe.text_encoder_share, clip_tokenizer, steps)
    trainer = unet.UNetTrainer(recipe, runtime, text, clip_tokenizer)
    text, net = unet.train(trainer, TimeBudget(minutes * recipe.unet_share, steps), latents, autoencoder)
    vae.train_decoder(recipe, runtime, minutes * recipe.decoder_share, autoencoder, steps)
    image, projection = image_encoder.train(
        recipe, runtime, minutes * recipe.image_encoder_share, text, clip_tokenizer, steps
    )
    export(
        output,
        tokenizer=clip_tokenizer,
        text=text,
        unet=net,
        vae=autoencoder,
        image=image,
        text_projection=projection,
    )


if __name__ == "__main__":
    main()
