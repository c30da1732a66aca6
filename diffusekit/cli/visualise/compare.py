"""`diffusekit visualise compare`: runs side by side, from the same noise."""

from typing import Annotated, Any

import typer

from ...config import resolve_settings
from ...schedule import SAMPLERS
from ...settings import GenerateSettings, validate
from ..options import with_group, with_settings
from ..progress import quiet_libraries
from .options import FigureOptions, Quiet, run_recorder

_REPEATABLE = ("sampler", "steps", "guidance_scale", "seed")

Samplers = Annotated[list[str] | None, typer.Option("--sampler", help=f"One or more of {', '.join(SAMPLERS)}.")]
Steps = Annotated[list[int] | None, typer.Option("--steps", help="One or more numbers of steps.")]
Guidance = Annotated[list[float] | None, typer.Option("--guidance", help="One or more guidance scales.")]
Seeds = Annotated[
    list[int] | None,
    typer.Option("--seed", help="One or more seeds. Default: a random one for all runs."),
]
Drop = Annotated[
    list[str] | None,
    typer.Option(
        "--drop",
        metavar="WORD",
        help="Compare with the prompt without this word or learned token. Can be given several times.",
    ),
]


@with_group(FigureOptions, "options")
@with_settings(GenerateSettings, "prompt", "images", "batch", *_REPEATABLE)
def command(
    settings: dict[str, Any],
    options: FigureOptions,
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT", help="What to generate.")],
    sampler: Samplers = None,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Seeds = None,
    drop: Drop = None,
    quiet: Quiet = False,
) -> None:
    """Compare runs side by side, from the same noise.

    Options that are given several times are compared in every combination, up to 12 runs.

    Formats: .png and .jpg show a contact sheet, .webp .apng .gif .mp4 a film, .json the numbers.
    """
    resolved = resolve_settings(GenerateSettings, "visualise", settings)
    repeated = dict(zip(_REPEATABLE, (sampler, steps, guidance, seed), strict=True))
    values: dict[str, list[Any]] = {
        "prompt": prompts,
        "drop": [None, *(drop or [])],
        **{name: several for name, several in repeated.items() if several},
    }
    for name, several in values.items():
        for value in several if name != "drop" else ():
            validate(GenerateSettings, {name: value})
    common = resolved.model_dump(exclude_unset=True, exclude={"prompt", "images", "batch"})
    with quiet_libraries():
        from ...visualise.compare import ComparisonRecorder, combinations, render
        from ...visualise.figure import FILMS, STILLS

        options.check(*STILLS, *FILMS)
        recorder = ComparisonRecorder(combinations(**values), **common)
        run_recorder(recorder, show=not quiet)
        options.write(render(recorder.runs), "compare")
