"""`diffusekit visualise compare`: runs side by side, from the same noise."""

from functools import partial
from typing import Annotated, Any

import typer

from ...config import resolve_settings
from ...schedule import SAMPLERS
from ...settings import GenerateSettings, validate
from ..options import with_group, with_settings
from ..progress import quiet_libraries
from .options import FILM, STILL, FigureOptions, Quiet, run_recorder

_VARIED = ("sampler", "steps", "guidance_scale", "seed")

Samplers = Annotated[
    list[str] | None,
    typer.Option("--sampler", help=f"How to step, several to compare: {', '.join(SAMPLERS)}."),
]
Steps = Annotated[list[int] | None, typer.Option("--steps", help="Steps, several to compare.")]
Guidance = Annotated[list[float] | None, typer.Option("--guidance", help="Guidance scales, several to compare.")]
Seeds = Annotated[
    list[int] | None,
    typer.Option("--seed", help="Seeds, several to compare. Default: one for all, by chance."),
]
Drop = Annotated[
    list[str] | None,
    typer.Option(
        "--drop",
        metavar="WORD",
        help="Compare with the prompt without this word or learned token. May be given several times.",
    ),
]


@with_group(FigureOptions, "manner")
@with_settings(GenerateSettings, "prompt", "images", "batch", *_VARIED)
def command(
    settings: dict[str, Any],
    manner: FigureOptions,
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT", help="What to draw.")],
    sampler: Samplers = None,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Seeds = None,
    drop: Drop = None,
    quiet: Quiet = False,
) -> None:
    """Runs in lock-step from the same noise: whatever is given several times is compared, at most 12 runs.

    A .png or .jpg is a contact sheet, .webp .apng .gif .mp4 a film, .json the numbers.
    """
    resolved = resolve_settings(GenerateSettings, "visualise", settings)
    given = dict(zip(_VARIED, (sampler, steps, guidance, seed), strict=True))
    values: dict[str, list[Any]] = {
        "prompt": prompts,
        "drop": [None, *(drop or [])],
        **{k: v for k, v in given.items() if v},
    }
    for name, several in values.items():
        for value in several if name != "drop" else ():
            validate(GenerateSettings, {name: value})
    manner.check(*STILL, *FILM)
    common = resolved.model_dump(exclude_unset=True, exclude={"prompt", "images", "batch"})
    with quiet_libraries():
        from ...visualise.compare import combinations, compare

        exhibit = compare(combinations(**values), watch=partial(run_recorder, show=not quiet), **common)
        manner.write(exhibit, "compare")
