"""`diffusekit models import`: a checkpoint or VAE in a pickle to safetensors."""

from pathlib import Path
from typing import Annotated

import typer

from ..progress import byte_bar


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Weights in a pickle: .ckpt, .pt, .pth or .bin.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Output file. Default: beside FILE, as .safetensors."),
    ] = None,
    keep_ema: Annotated[bool, typer.Option("--keep-ema", help="Keep the averaged weights of training too.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress bar.")] = False,
) -> None:
    """Convert a checkpoint or VAE in a pickle to a .safetensors file.

    The pickle is opened in a sandboxed process, which can write no file and run no program.
    """
    from ...models.pickled_weights import import_checkpoint

    # transformers looks for another name than torch
    stem = "model" if file.stem == "pytorch_model" else file.stem
    target = output if output is not None else file.with_name(f"{stem}.safetensors")
    if output is not None and (output.is_dir() or not output.suffix):
        target = output / f"{stem}.safetensors"
    with byte_bar("importing", show=not quiet) as (on_size, on_progress):
        import_checkpoint(
            file, target, keep_ema=keep_ema, overwrite=overwrite, on_size=on_size, on_progress=on_progress
        )
    print(target)
