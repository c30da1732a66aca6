"""`diffusekit visualise noise`: the way of a picture into noise."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ...config import resolve_settings
from ...settings import GenerateSettings
from ..options import with_group, with_settings
from ..progress import quiet_libraries
from .options import FILM, STILL, FigureOptions

_TAKEN = {"model", "device", "dtype"}

At = Annotated[
    list[int] | None,
    typer.Option("--at", metavar="T", help="A timestep to show; may be given several times. Default: eight."),
]
Schedule = Annotated[
    list[str] | None,
    typer.Option(
        "--schedule",
        help="A noise schedule: own (the model's), linear, scaled_linear, cosine, zero_terminal. May be "
        "given several times. [default: own]",
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Same seed, same noise. Default: 0.")]


@with_group(FigureOptions, "manner")
@with_settings(GenerateSettings, *(set(GenerateSettings.model_fields) - _TAKEN))
def command(
    settings: dict[str, Any],
    manner: FigureOptions,
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="Any picture file.")],
    at: At = None,
    schedule: Schedule = None,
    seed: Seed = None,
) -> None:
    """The way into noise: a picture at chosen timesteps, in pixels and latents, and what the VAE loses.

    A .png or .jpg is a contact sheet, .webp .apng .gif .mp4 a film, .json the numbers.
    """
    resolved = resolve_settings(GenerateSettings, "visualise", settings | {"seed": seed})
    manner.check(*STILL, *FILM)
    with quiet_libraries():
        from ...visualise.forward import noise

        exhibit = noise(
            picture,
            at=at,
            schedules=schedule or ("own",),
            seed=resolved.seed or 0,
            model=resolved.model,
            device=resolved.device,
            dtype=resolved.dtype,
        )
        manner.write(exhibit, "noise")
