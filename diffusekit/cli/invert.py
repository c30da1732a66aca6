"""`diffusekit invert`: learn a new token from a folder of images."""

import json
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import find_recipe, read_recipe, resolve_settings
from ..display import format_count, format_duration, printable
from ..errors import UsageError
from ..settings import InvertSettings
from ..workspace import Workspace
from .main import StopSignal
from .options import with_settings
from .progress import progress_bar, quiet_libraries

if TYPE_CHECKING:
    from ..embeddings import LearnedToken
    from ..inversion.trainer import Inversion, TrainingProgress


@with_settings(InvertSettings, "pictures")
def command(
    settings: dict[str, Any],
    source: Annotated[
        Path,
        typer.Argument(metavar="FOLDER|RECIPE.toml", help="Folder of three to five images, or a recipe with one."),
    ],
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", metavar="NAME|FILE", help="Recipe: object, style, quick, or a TOML file."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Output folder.")] = Path("embeddings"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an unfinished run, or train a finished one to more --steps.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing run and its token.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail if any file in the folder cannot be used.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the path.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no table and no progress bar.")] = False,
) -> None:
    """Learn a token from a few images (textual inversion).

    Example: diffusekit invert ./my_cat/
    """
    resolved = resolve_settings(InvertSettings, "invert", _read_source(source, recipe) | settings)
    started = time.perf_counter()
    with quiet_libraries():
        from ..inversion.trainer import Inversion

        run = Inversion(resolved, output, resume=resume, overwrite=overwrite, strict=strict)
        quiet = quiet or not run.is_main  # of several processes, only the main one prints
        try:
            if not quiet:
                _print_dataset(run)
            with catch_stop_signals(run.stop, announce=run.is_main) as signals:
                train(run, signals, show=not quiet)
        finally:
            run.close()
    if run.is_main:
        _print_result(run, output, time.perf_counter() - started, as_json=as_json, quiet=quiet)


def _read_source(source: Path, recipe: str | None) -> dict[str, Any]:
    """Return the settings of the recipe, if there is one, with the folder of images."""
    if source.suffix == ".toml":
        if recipe is not None:
            raise UsageError("two recipes were given", "leave out one of them")
        values = read_recipe(InvertSettings, source)
        if not values.get("pictures"):
            raise UsageError(
                f"{source} names no folder of images",
                f'diffusekit invert FOLDER --recipe {source}, or add a line: pictures = "my_cat"',
            )
        return values | {"pictures": str(source.parent / values["pictures"])}
    values = {} if recipe is None else read_recipe(InvertSettings, find_recipe(recipe))
    return values | {"pictures": str(source)}


@contextmanager
def catch_stop_signals(stop: Callable[[], None], *, announce: bool) -> Iterator[list[int]]:
    """Collect the first Ctrl-C or SIGTERM in a list and call `stop`, so that training can save.

    A second one stops at once.
    """
    signals: list[int] = []

    def collect(number: int, _frame: FrameType | None) -> None:
        if signals:
            raise StopSignal(number)
        signals.append(number)
        stop()
        if announce:
            print("stopping after this step; press Ctrl-C again to stop at once", file=sys.stderr)

    handlers = {number: signal.signal(number, collect) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def train(run: "Inversion", signals: list[int], *, show: bool) -> None:
    """Train to the end under a progress bar. After a signal, save a checkpoint, print how to resume, and stop."""
    with progress_bar(show=show) as bar:
        console = bar.console
        description = f"learning {run.settings.token}"
        task = bar.add_task(description, total=run.settings.steps, completed=run.step, note="")
        for progress in run:
            bar.update(task, completed=progress.step, note=_format_progress(progress, run.learning_rates))
            if progress.evaluation is not None:
                console.print(_format_scores(progress), highlight=False, markup=False)
            if signals:
                break
        if signals and run.result is None:
            run.save_checkpoint()
            console.quiet = not run.is_main
            message = f"saved at step {run.step}; resume with:\n  {_resume_command(run)}"
            console.print(message, highlight=False, markup=False, soft_wrap=True)
            raise StopSignal(signals[0])


def _resume_command(run: "Inversion") -> str:
    """Return the command that resumes a run, in as many processes."""
    words = [word for word in sys.argv[1:] if word not in ("--resume", "--overwrite")]
    launch = []
    if run.process_count > 1:
        cpu = ["--cpu"] if run.settings.device == "cpu" else []
        launch = ["accelerate", "launch", *cpu, "--num_processes", str(run.process_count), "-m"]
    return shlex.join([*launch, "diffusekit", *words, "--resume"])


def _format_progress(progress: "TrainingProgress", rates: Sequence[float]) -> str:
    rate = " ".join(dict.fromkeys(f"{each:.3g}" for each in rates))
    moved = " ".join(f"{each.moved:.2f}" for each in progress.vectors)
    nearest = " | ".join(", ".join(each.nearest) for each in progress.vectors)
    return f"loss {progress.smoothed:.4f}  rate {rate}  moved {moved}  nearest {nearest} "


def _format_scores(progress: "TrainingProgress") -> str:
    evaluation = progress.evaluation
    assert evaluation is not None
    name = f"step {progress.step:>5}" if progress.step else "init words"
    if evaluation.reconstruction is None:
        return f"{name}  validation image"
    best = "  best so far" if progress.best else ""
    return f"{name}  reconstruction {evaluation.reconstruction:.3f}  editability {evaluation.editability:.3f}{best}"


def _print_dataset(run: "Inversion") -> None:
    """Print a table of the files in the folder, and what training starts from."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("image", "size", "used", "note"):
        table.add_column(title)
    for row in run.dataset.files:
        table.add_row(_plain(row.file), row.size, "yes" if row.used else "no", _plain(row.note))
    console = Console(stderr=True)
    console.print(table)
    scorer = run.evaluator.scorer
    console.print(
        f"{format_count(len(run.dataset.photos), 'image')}; base model {run.model.name}; "
        f"initial words {run.settings.init!r}; "
        + (f"scored by {scorer.name}" if scorer else "no CLIP model is available, so the last step is kept"),
        highlight=False,
        markup=False,
    )


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(printable(text))


def _print_result(run: "Inversion", output: Path, seconds: float, *, as_json: bool, quiet: bool) -> None:
    """Print where the token is, how good it is, and how to use it."""
    token = run.result
    assert token is not None and token.path is not None
    scores = json.loads(token.metadata.get("scores", "{}"))
    report = run.folder.report
    if as_json:
        result = {
            "path": str(token.path),
            "token": token.token,
            "name": token.name,
            "sha256": token.sha256,
            "steps": run.step,
            "best_step": int(token.metadata["steps"]),
            "scores": scores,
            "pairwise": run.evaluator.photo_similarity,
            "page": str(report),
            "seconds": round(seconds, 1),
            "pictures": [vars(row) for row in run.dataset.files],
        }
        print(json.dumps(result, ensure_ascii=False))
        return
    print(token.path)
    if quiet:
        return
    best = token.metadata["steps"]
    lines = [f"learned {token.token} in {format_duration(seconds)}; the best step is {best}"]
    if scores:
        lines += [
            f"reconstruction {scores['reconstruction']:.3f} (initial words {scores['init_reconstruction']:.3f}, "
            f"training images among themselves {run.evaluator.photo_similarity:.3f})",
            f"editability {scores['editability']:.3f} (initial words {scores['init_editability']:.3f})",
        ]
    lines += [f"report: {report}", f"use it:  {_example(run, token, output)}"]
    if "word" in token.metadata:
        lines.append(f"{token.name} keeps its usual meaning in prompts; the token is {token.token} or <{token.name}>")
    print("\n".join(lines), file=sys.stderr)


def _example(run: "Inversion", token: "LearnedToken", output: Path) -> str:
    """Return a command that generates an image with the token."""
    in_workspace = output.resolve() == Workspace().embeddings.resolve()
    model = [] if run.settings.model == "mini" else ["--model", run.settings.model]
    embedding = ["--embedding", token.name if in_workspace else str(token.path)]
    return shlex.join(["diffusekit", "generate", f"an app icon of {token.token}", *embedding, *model])
