"""A job as it is stored: its settings, state, progress and results. Imports no torch."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from ... import hub

State = Literal["queued", "running", "done", "failed", "cancelled"]
FINAL_STATES: tuple[State, ...] = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Failure:
    """Why a job failed; `code` is the exit code that the command line would have."""

    code: int
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Job:
    """The state of a job at one moment; times are seconds since 1970.

    `pictures` are the paths of its images below the outputs folder. `passed` counts images that are finished, were
    skipped or were flagged: after a restart the job continues behind them. `flagged` counts those that a safety checker
    flagged. `attempts` counts how often it was started. `warnings` say what has no effect. The names of the fields are
    stored in `jobs.sqlite`.
    """

    id: str
    kind: str
    settings: dict[str, Any]
    owner: str = ""
    state: State = "queued"
    created: float = 0.0
    started: float | None = None
    finished: float | None = None
    step: int = 0
    steps: int = 0
    note: str = ""
    pictures: tuple[str, ...] = ()
    passed: int = 0
    flagged: int = 0
    attempts: int = 0
    failure: Failure | None = None
    warnings: tuple[str, ...] = ()

    @property
    def is_finished(self) -> bool:
        return self.state in FINAL_STATES

    @property
    def progress(self) -> float:
        """The share that is done, 0 to 1."""
        if self.state == "done":
            return 1.0
        return min(self.step / self.steps, 1.0) if self.steps else 0.0

    @property
    def eta(self) -> float | None:
        """Estimated seconds to its end; None while unknown."""
        if self.state != "running" or self.started is None or not self.step:
            return None
        return (time.time() - self.started) * (1 - self.progress) / self.progress

    def to_json(self) -> dict[str, Any]:
        """What HTTP clients get: plain values, and no path of this machine."""
        values = asdict(self) | {"progress": round(self.progress, 4), "eta": self.eta}
        settings = {name: value for name, value in self.settings.items() if name != "folder"}
        if isinstance(model := settings.get("model"), str):
            settings["model"] = hub.record_name(model)
        values["settings"] = settings
        del values["passed"], values["attempts"]
        return values

    def dump(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def load(cls, text: str) -> Job:
        values = json.loads(text)
        known = {f.name for f in fields(cls)}
        job = cls(**{name: value for name, value in values.items() if name in known})
        failure = values.get("failure")
        lists = {"pictures": tuple(job.pictures), "warnings": tuple(job.warnings)}
        return replace(job, **lists, failure=Failure(**failure) if failure else None)
