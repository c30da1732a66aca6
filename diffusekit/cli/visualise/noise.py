"""`diffusekit visualise noise`: the forward process."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ...config import resolve_settings
from ...settings import GenerateSettings
from ..options import with_group, with_settings
from ..progress import quiet_libraries
from .options import FigureOptions

_SETTINGS = {"model", "device", "dtype"}

At = Annotated[
    list[int] | None,
    typer.Option("--at", metavar="T", help="A timestep to show. Can be given several times. Default: eight."),
]
Schedule = Annotated[
    list[str] | None,
    typer.Option(
        "--schedule",
        help="A noise schedule: own (the model's), linear, scaled_linear, cosine, zero_terminal. "
        "Can be given several times. [default: own]",
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of the noise. Default: 0.")]


@with_group(FigureOptions, "options")
@with_settings(GenerateSettings, *(set(GenerateSettings.model_fields) - _SETTINGS))
def command(
    settings: dict[str, Any],
    options: FigureOptions,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image file.")],
    at: At = None,
    schedule: Schedule = None,
    seed: Seed = None,
) -> None:
    """Show the forward process: noise added to an image.

    Shows chosen timesteps in pixels and latents, and what the VAE loses.
    Formats: .png and .jpg show a contact sheet, .webp .apng .gif .mp4 a film, .json the numbers.
    """
    resolved = resolve_settings(GenerateSettings, "visualise", settings | {"seed": seed})
    with quiet_libraries():
        from ...visualise.figure import FILMS, STILLS
        from ...visualise.forward import add_noise, render

        options.check(*STILLS, *FILMS)
        process = add_noise(
            image,
            at=at,
            schedules=schedule or ("own",),
            seed=resolved.seed or 0,
            model=resolved.model,
            device=resolved.device,
            dtype=resolved.dtype,
        )
        options.write(render(process), "noise")
