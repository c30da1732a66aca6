"""A live bar on stderr while pictures are made: steps per second and time left; silent elsewhere."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..pipeline import Generation
    from ..visualise import TraceRecorder
    from ..visualise.attention_maps import AttentionMapRecorder


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Our own warnings go to stderr, one line each; those of the libraries stay out of the way."""
    import os
    import warnings

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0" if sys.stderr.isatty() else "1")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    handler.addFilter(_lower)
    log = logging.getLogger("diffusekit")
    log.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.removeHandler(handler)


def _lower(record: logging.LogRecord) -> bool:
    record.levelname = record.levelname.lower()
    return True


def follow(running: "Generation | TraceRecorder | AttentionMapRecorder", *, show: bool) -> Iterator[None]:
    """Run a stream to its end; yields after every step, under a bar when `show` and stderr is a terminal."""
    if not (show and sys.stderr.isatty()):
        for _ in running:
            yield
        yield
        return
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
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("denoising", total=running.total, speed="")
        for _ in running:
            speed = bar.tasks[0].speed
            bar.update(task, advance=1, total=running.total, speed=f"{speed:.1f} steps/s" if speed else "")
            yield
    yield
