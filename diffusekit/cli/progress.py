"""A live progress bar on stderr: steps, speed and time left. Nothing is shown where stderr is not a terminal."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress


class StepSource(Protocol):
    """Denoising steps to iterate over, and how many there will be: a Generation or a recorder."""

    @property
    def total(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Suppress progress bars, logs and warnings of the libraries that we use."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0" if sys.stderr.isatty() else "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def progress_bar(*, show: bool) -> "Progress":
    """Make a bar with a description, the steps, a `note` and the time left. `show=False` makes it silent."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(compact=True),
    )
    console = Console(stderr=True, quiet=not show)
    return Progress(*columns, console=console, transient=True, disable=not (show and console.is_terminal))


def follow(steps: StepSource, *, show: bool) -> Iterator[None]:
    """Run to the end under a progress bar. Yields after every step, and once more at the end."""
    if not (show and sys.stderr.isatty()):  # rich is not even imported
        for _ in steps:
            yield
        yield
        return
    with progress_bar(show=True) as bar:
        task = bar.add_task("denoising", total=steps.total, note="")
        for _ in steps:
            speed = bar.tasks[0].speed
            bar.update(task, advance=1, total=steps.total, note=f"{speed:.1f} steps/s" if speed else "")
            yield
    yield


@contextmanager
def byte_bar(label: str, *, show: bool) -> Iterator[tuple[Callable[[int], None], Callable[[int], None]]]:
    """Show a progress bar of bytes on stderr, and nothing where stderr is not a terminal.

    Yields two functions: one is told the number of bytes, the other how many more are done.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, quiet=not show)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not (show and console.is_terminal)) as bar:
        task = bar.add_task(label, total=None)
        yield lambda size: bar.update(task, total=size), lambda count: bar.update(task, advance=count)
