"""The table of job types: how the settings of each are checked, and what runs it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

from ...settings import ServeSettings
from . import generate, invert, visualise
from .context import JobContext


@dataclass(frozen=True)
class JobType:
    """One kind of job.

    `check` runs in the thread that submits. It returns complete settings, so that a job that is run again does the
    same. `run` runs in the worker and yields wherever the job may be stopped.
    """

    check: Callable[[Mapping[str, Any], ServeSettings], dict[str, Any]]
    run: Callable[[JobContext], Generator[None]]


JOB_TYPES: dict[str, JobType] = {
    "generate": JobType(generate.check, generate.run),
    "invert": JobType(invert.check, invert.run),
    "visualise": JobType(visualise.check, visualise.run),
}
