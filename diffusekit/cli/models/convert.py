"""`diffusekit models convert`: another layout or precision of a model."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ...errors import UsageError
from ..progress import byte_bar, quiet_libraries


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name, a .safetensors file, a folder or a hub id.")],
    target: Annotated[
        Path, typer.Argument(metavar="TARGET", help="A name that ends in .safetensors is one file, else a folder.")
    ],
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="float16, bfloat16 or float32. Default: as the weights are.")
    ] = None,
    ema: Annotated[bool, typer.Option("--ema", help="Take the averaged weights of training (model_ema).")] = False,
    prediction_type: Annotated[
        str | None, typer.Option("--prediction-type", help="epsilon or v_prediction, where a file does not say it.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress bar.")] = False,
) -> None:
    """Convert a model to one file, to a folder, or in precision.

    A folder is one in diffusers layout.
    Example: diffusekit models convert dreamy.safetensors dreamy/ --dtype float16
    """
    _check("dtype", dtype, ("float16", "bfloat16", "float32"))
    _check("prediction_type", prediction_type, ("epsilon", "v_prediction"))
    with quiet_libraries():
        from ...models.convert import convert

        chosen: Any = {"dtype": dtype, "prediction_type": prediction_type}
        with byte_bar("converting", show=not quiet) as (on_size, on_progress):
            how: Any = {"on_size": on_size, "on_progress": on_progress}
            convert(model, target, ema=ema, overwrite=overwrite, **chosen, **how)
    print(target)


def _check(name: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise UsageError(
            f"`{name}` should be {' or '.join(allowed)}, got {value[:60]!r}", "leave it out for the default"
        )
