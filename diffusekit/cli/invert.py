"""`diffusekit invert`: learn a new token from a folder of pictures."""

import json
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import find_recipe, read_recipe, resolve_settings
from ..display import printable
from ..errors import UsageError
from ..settings import InvertSettings
from ..workspace import Workspace
from .main import StopSignal
from .options import with_settings
from .progress import quiet_libraries

if TYPE_CHECKING:
    from ..inversion.trainer import Inversion, TrainingProgress


@with_settings(InvertSettings, "pictures")
def command(
    settings: dict[str, Any],
    source: Annotated[
        Path,
        typer.Argument(metavar="FOLDER|RECIPE.toml", help="Three to five pictures, or a recipe that names them."),
    ],
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", metavar="NAME|FILE", help="object, style, quick or a TOML file."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for learned tokens.")] = Path("embeddings"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start again over an earlier run.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop if any file cannot be used.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of the path.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No table, no progress.")] = False,
) -> None:
    """Learn a token S* from a few pictures: diffusekit invert ./my_cat/."""
    resolved = resolve_settings(InvertSettings, "invert", _recipe(source, recipe) | settings)
    started = time.perf_counter()
    with quiet_libraries():
        from ..inversion.trainer import Inversion

        run = Inversion(resolved, output, resume=resume, overwrite=overwrite, strict=strict)
        quiet = quiet or not run.is_main  # of several processes, one speaks
        try:
            if not quiet:
                _show_pictures(run)
            with _asked_to_stop(speak=run.is_main) as asked:
                _follow(run, asked, show=not quiet)
        finally:
            run.close()
    if run.is_main:
        _tell(run, output, time.perf_counter() - started, as_json=as_json, quiet=quiet)


def _recipe(source: Path, recipe: str | None) -> dict[str, Any]:
    """The settings of a recipe and the pictures' folder, whichever way they were given."""
    if source.suffix == ".toml":
        if recipe is not None:
            raise UsageError("two recipes were given", "leave one of them out")
        values = read_recipe(InvertSettings, source)
        if not values.get("pictures"):
            raise UsageError(
                f"{source} names no pictures",
                f'diffusekit invert FOLDER --recipe {source}, or add a line: pictures = "my_cat"',
            )
        return values | {"pictures": str(source.parent / values["pictures"])}
    values = {}
    if recipe is not None:
        values = read_recipe(InvertSettings, find_recipe(recipe))
    return values | {"pictures": str(source)}


@contextmanager
def _asked_to_stop(*, speak: bool) -> Iterator[list[int]]:
    """A list that receives the signal when Ctrl-C or SIGTERM asks to stop; a second one does not wait."""
    asked: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        if asked:
            raise StopSignal(number)
        asked.append(number)
        if speak:
            print("stopping after this step; again: at once", file=sys.stderr)

    before = {n: signal.signal(n, ask) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _follow(run: "Inversion", asked: list[int], *, show: bool) -> None:
    """Run to the end, under a bar; when asked to stop, save and say how to go on."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(compact=True),
    )
    console = Console(stderr=True, quiet=not show)
    bar = Progress(*columns, console=console, transient=True, disable=not (show and console.is_terminal))
    with bar:
        told = f"learning {run.settings.token}"
        task = bar.add_task(told, total=run.settings.steps, completed=run.step, told="")
        for moment in run:
            bar.update(task, completed=moment.step, told=_line(moment, run.learning_rate))
            if moment.evaluation is not None:
                console.print(_scores(moment), highlight=False, markup=False)
            if asked:
                run.save_checkpoint()
                console.quiet = not run.is_main
                console.print(
                    f"saved at step {run.step}; go on with:\n  {_again(run)}",
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )
                raise StopSignal(asked[0])


def _again(run: "Inversion") -> str:
    """The command that goes on with a run, in as many processes."""
    words = [word for word in sys.argv[1:] if word not in ("--resume", "--overwrite")]
    launch = []
    if run.process_count > 1:
        on = ["--cpu"] if run.settings.device == "cpu" else []
        launch = ["accelerate", "launch", *on, "--num_processes", str(run.process_count), "-m"]
    return shlex.join([*launch, "diffusekit", *words, "--resume"])


def _line(moment: "TrainingProgress", rate: float) -> str:
    near = ", ".join(moment.nearest)
    return f"loss {moment.smoothed:.4f}  rate {rate:.3g}  moved {moment.moved:.2f}  near {near} "


def _scores(moment: "TrainingProgress") -> str:
    evaluation = moment.evaluation
    assert evaluation is not None
    name = f"step {moment.step:>5}" if moment.step else "init word "
    if evaluation.reconstruction is None:
        return f"{name}  preview"
    best = "  best so far" if moment.best else ""
    return f"{name}  reconstruction {evaluation.reconstruction:.3f}  editability {evaluation.editability:.3f}{best}"


def _show_pictures(run: "Inversion") -> None:
    """The table of what was found in the folder."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("picture", "size", "used", "note"):
        table.add_column(title)
    for row in run.dataset.files:
        table.add_row(_plain(row.file), row.size, "yes" if row.used else "no", _plain(row.note))
    console = Console(stderr=True)
    console.print(table)
    judge = run.evaluator.scorer
    console.print(
        f"{len(run.dataset.photos)} pictures; starts from {run.settings.init!r} on {run.model.name}; "
        + (f"judged by {judge.name}" if judge else "no CLIP is at hand to judge, so the last step is kept"),
        highlight=False,
        markup=False,
    )


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(printable(text))


def _tell(run: "Inversion", output: Path, seconds: float, *, as_json: bool, quiet: bool) -> None:
    """Where the token lies, how good it is, and how to use it."""
    token = run.result
    assert token is not None and token.path is not None
    scores = json.loads(token.metadata.get("scores", "{}"))
    page = run.folder.report
    if as_json:
        told = {
            "path": str(token.path),
            "token": token.token,
            "name": token.name,
            "sha256": token.sha256,
            "steps": run.step,
            "best_step": int(token.metadata["steps"]),
            "scores": scores,
            "pairwise": run.evaluator.photo_similarity,
            "page": str(page),
            "seconds": round(seconds, 1),
            "pictures": [vars(row) for row in run.dataset.files],
        }
        print(json.dumps(told, ensure_ascii=False))
        return
    print(token.path)
    if quiet:
        return
    lines = [f"learned {token.token} in {seconds:.0f} s; step {token.metadata['steps']} was the best"]
    if scores:
        lines.append(
            f"reconstruction {scores['reconstruction']:.3f} (init word {scores['init_reconstruction']:.3f}, the "
            f"pictures among themselves {run.evaluator.photo_similarity:.3f}); editability {scores['editability']:.3f} "
            f"(init word {scores['init_editability']:.3f})"
        )
    lines.append(f"look at {page}")

    words = [] if run.settings.model == "mini" else ["--model", run.settings.model]
    near = output.resolve() == Workspace().embeddings.resolve()
    given = ["--embedding", token.name if near else str(token.path)]
    example = ["diffusekit", "generate", f"an app icon of {token.token}", *given]
    lines.append(f"use it:  {shlex.join([*example, *words])}")
    if "word" in token.metadata:
        lines.append(f"{token.name} alone stays the word that it is; the token is {token.token} or <{token.name}>")
    print("\n".join(lines), file=sys.stderr)
