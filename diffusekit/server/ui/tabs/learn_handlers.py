"""What happens in the Learn tab: the handlers of its events, over the jobs, the runs and its components.

Every handler returns what the page shows next, by component; none raises. Knows no other tab.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from .... import embeddings
from ....errors import DiffusekitError, UsageError
from ....inversion.run_folder import INIT_STEP, RunFolder, RunLog, image_sheet, run_folders
from ...jobs.job import Job
from ...storage import tokens, trash, uploads
from .. import html, prompt_info
from ..context import House, error_notice
from . import learn_html

PICTURES = [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".txt"]
REMEMBERED = 300  # jobs that are looked through for runs
_PLAIN = ("img", "dsc", "image", "photo", "pic", "picture", "pxl", "screenshot", "download")
Answer = dict[Any, Any]


@dataclass
class Form:
    """What is asked for; `fields` by the names of their settings."""

    files: gr.File
    table: gr.HTML
    photos: gr.State
    name: gr.Textbox
    init: gr.Textbox
    kind: gr.Radio
    fields: dict[str, Any]
    estimate: gr.HTML
    go: gr.Button
    notice: gr.HTML

    @property
    def steps(self) -> Any:
        return self.fields["steps"]

    @property
    def batch(self) -> Any:
        return self.fields["batch"]

    @property
    def inputs(self) -> list[Any]:
        return [self.photos, self.name, self.init, self.kind, *self.fields.values()]


@dataclass
class Shown:
    """The run that is looked at. `seen` names the preview on the page, `asked` the run that would be
    discarded."""

    run: gr.Dropdown
    state: gr.HTML
    stop: gr.Button
    resume: gr.Button
    use: gr.Button
    discard: gr.Button
    slider: gr.ImageSlider
    facts: gr.HTML
    timer: gr.Timer
    seen: gr.State
    asked: gr.State


def _told(handler: Callable[..., Answer]) -> Callable[..., Answer]:
    """A handler whose errors are words on the page."""

    @functools.wraps(handler)
    def safe(self: Lab, *values: Any) -> Answer:
        try:
            return handler(self, *values)
        except Exception as error:
            return {self.form.notice: error_notice(error)}

    return safe


class Lab:
    """Handlers; `taking` and `looking` are the components that they change."""

    def __init__(self, house: House, form: Form, shown: Shown):
        self.jobs, self.model, self.form, self.shown = house.jobs, house.settings.model, form, shown
        self.tabs = house.tabs
        self.places, self.folder = house.places, Path(house.settings.state)
        self._first: dict[str, tuple[int, float]] = {}  # step and time when a job was first seen to learn
        self.taking = [
            form.table,
            form.photos,
            form.name,
            form.estimate,
            form.fields["captions"],
            form.notice,
        ]
        self.looking = [
            shown.run,
            shown.state,
            shown.stop,
            shown.resume,
            shown.use,
            shown.slider,
            shown.facts,
            shown.timer,
            shown.seen,
            form.notice,
            shown.discard,
            shown.asked,
        ]

    # --- the pictures -----------------------------------------------------------------------

    def take(self, files: list[str] | None, name: str) -> Answer:
        """Keep the pictures that were dropped, and say what became of them."""
        try:
            paths = [Path(path) for path in files or ()]
            found = uploads.store(self.folder, paths)
            uploads.prune(self.folder, {str(j.settings.get("pictures")) for j in self._jobs()})
        except Exception as error:
            return self.forget() | {self.form.notice: error_notice(error)}
        captions = "\n".join(found.captions) if any(found.captions) else ""
        return {
            self.form.table: learn_html.render_uploads(found),
            self.form.photos: found.id,
            self.form.name: gr.skip() if name.strip() else _called(paths),
            self.form.fields["captions"]: captions,
            self.form.notice: "",
        }

    def forget(self) -> Answer:
        """No pictures are chosen any more."""
        return {self.form.table: "", self.form.photos: "", self.form.notice: ""}

    def suggest(self, name: str) -> Any:
        """The word that learning would start from, shown where it can be written over."""
        try:
            known = self.jobs.is_ready  # transformers may not be imported by two threads at once
            word = prompt_info.suggest_init(self.model, name) if known and name.strip() else "cat"
        except DiffusekitError:
            word = "cat"
        return gr.update(placeholder=word)

    def guess(self, steps: float, batch: float) -> str:
        return learn_html.render_estimate(self._jobs(), self.model, int(steps), int(batch))

    # --- runs -------------------------------------------------------------------------------

    @_told
    def begin(self, chosen: str, name: str, init: str, kind: str, *values: Any) -> Answer:
        """Hand a run to the queue, and look at it."""
        if not chosen:
            raise UsageError("there are no pictures yet", "drop three to five pictures of one thing")
        if not name.strip():
            raise UsageError("it has no name yet", "give it one, like my_cat")
        self.check_not_training(name.strip())
        fields = dict(zip(self.form.fields, values, strict=True))
        lines = (fields.pop("captions") or "").splitlines()
        pictures = uploads.with_captions(self.folder, chosen, lines)
        given = {key: value for key, value in fields.items() if value not in (None, "")}
        given |= {"pictures": pictures, "name": name.strip(), "property": kind}
        if kind == "style":
            given["preview"] = f"a painting in the style of {given.get('token', 'S*')}"
        if init.strip():
            given["init"] = init.strip()
        job = self.jobs.submit("invert", given, owner="page")
        return self._look(job.settings["name"], "") | {self.form.notice: ""}

    @_told
    def stop(self, name: str, seen: str) -> Answer:
        """Ask a run to save itself and end."""
        if (job := self._job(name)) and not job.is_finished:
            self.jobs.cancel(job.id)
        return self._look(name, seen)

    @_told
    def resume(self, name: str, seen: str) -> Answer:
        """Go on with a run that was stopped."""
        job = self._job(name)
        if job is None:
            raise UsageError(
                "this run was not begun here",
                "go on with it where it was: diffusekit invert --resume",
            )
        self.check_not_training(name)
        self.jobs.submit("invert", job.settings | {"resume": True}, owner="page")
        return self._look(name, seen)

    @_told
    def discard(self, name: str, seen: str, asked: str) -> Answer:
        """Throw away a run that is not finished: the first press says what goes, the second does it."""
        shown = self.shown
        jobs = [job for job in self._jobs() if job.settings["name"] == name]
        run = self._run(name)
        if run.has_token or not all(job.is_finished for job in jobs):
            raise UsageError(f"{name} goes on, or is finished", "remove it in Tokens, or stop it")
        if asked != name:
            goes = f"{name} would go: {run.read_log().step} steps, {trash.measure(run.path)}."
            words = html.render_notice(goes, "Press again to discard it.")
            button = gr.update(value="Discard it", variant="stop")
            return {shown.discard: button, shown.asked: name, shown.state: words}
        tokens.remove_run(self.jobs.embeddings, name)
        for job in jobs:
            self.jobs.forget(job.id)
        words = html.render_notice(f"{name} is discarded.", "Its files lie in the trash of Tokens.")
        return self._look("", seen) | {shown.state: words + learn_html.WELCOME}

    @_told
    def look(self, name: str | None, seen: str) -> Answer:
        return self._look(name or "", seen)

    @_told
    def beat(self, name: str | None, seen: str) -> Answer:
        """Time has passed; when a run is done, the other tabs are told of its token."""
        answer = self._look(name or "", seen)
        if name and self._run(name).has_token:
            fresh, outputs = self.places["refresh"]
            answer |= dict(zip(outputs, fresh(), strict=True))
        return answer

    @_told
    def enter(self, name: str | None, seen: str) -> Answer:
        """The tab is opened: look at the run that goes on, or at the one that was chosen."""
        going = [job.settings["name"] for job in self._jobs() if not job.is_finished]
        return self._look(going[-1] if going else name or "", seen)

    @_told
    def use(self, name: str, prompt: str) -> Answer:
        """Write the learned word into the prompt and go there."""
        field = self.places["form"]["prompt"]
        written = f"{prompt.rstrip()} <{name}>" if (prompt or "").strip() else f"a picture of <{name}>"
        return {field: written, self.tabs: gr.Tabs(selected="generate"), self.form.notice: ""}

    # --- what is shown ----------------------------------------------------------------------

    def _look(self, name: str, seen: str) -> Answer:
        """Everything about one run; the preview only when it is another than the one on the page."""
        shown, names = self.shown, self._names()
        name = name if name in names else ""
        choice = gr.update(choices=names, value=name or None, visible=bool(names))
        if not name:
            return {
                shown.run: choice,
                shown.state: learn_html.WELCOME,
                shown.facts: "",
            } | self._nothing()
        run, job = self._run(name), self._job(name)
        log, is_learned = run.read_log(), run.has_token
        going = job is not None and not job.is_finished
        ahead = self.jobs.count_ahead(job.id) if job else 0
        steps = job.settings["steps"] if job else log.step
        stopped = run.has_progress and not is_learned and not going
        answer = {
            shown.run: choice,
            shown.state: learn_html.render_state(run, job, ahead, self._left(job)),
            shown.facts: learn_html.render_details(log, steps),
            shown.stop: gr.update(visible=going),
            shown.resume: gr.update(visible=stopped and job is not None),
            shown.use: gr.update(visible=is_learned),
            shown.discard: _discard(visible=not (is_learned or going)),
            shown.asked: "",
            shown.timer: gr.Timer(active=going),
        }
        return answer | self._preview(run, log, seen)

    def _left(self, job: Job | None) -> float | None:
        """Seconds that a run goes on, by how fast it was while somebody looked."""
        if job is None or job.is_finished or not job.step:
            return None
        step, since = self._first.setdefault(job.id, (job.step, time.monotonic()))
        done = job.step - step
        return (time.monotonic() - since) / done * (job.steps - job.step) if done else None

    def _nothing(self) -> Answer:
        shown = self.shown
        hidden = gr.update(visible=False)
        return {
            shown.stop: hidden,
            shown.resume: hidden,
            shown.use: hidden,
            shown.slider: hidden,
            shown.timer: gr.Timer(active=False),
            shown.seen: "",
            shown.discard: _discard(visible=False),
            shown.asked: "",
        }

    def _preview(self, run: RunFolder, log: RunLog, seen: str) -> Answer:
        files = run.validation_images()
        if not files:
            return {self.shown.slider: gr.update(visible=False), self.shown.seen: ""}
        best = log.best.get("step") if run.has_token else None  # the vectors that were kept
        step, path = next((file for file in files if file[0] == best), files[-1])
        mark = f"{run.name}:{step}"
        if mark == seen:
            return {}
        try:
            pair = (_large(image_sheet(files[0][1])), _large(image_sheet(path)))
        except (DiffusekitError, OSError):  # it is being written
            return {}
        first = "the first word" if files[0][0] == INIT_STEP else f"step {files[0][0]}"
        label = f"Left: {first}. Right: {'step ' + str(step) if step else 'the same, so far'}."
        update = gr.update(value=pair, visible=True, label=label)
        return {self.shown.slider: update, self.shown.seen: mark}

    def _run(self, name: str) -> RunFolder:
        return RunFolder(self.jobs.embeddings, name)

    def _jobs(self) -> Sequence[Job]:
        """Runs among the newest jobs, newest first."""
        return [job for job in self.jobs.list(REMEMBERED) if job.kind == "invert"]

    def _job(self, name: str) -> Job | None:
        """The newest job of a run."""
        return next((job for job in self._jobs() if job.settings["name"] == name), None)

    def check_not_training(self, name: str) -> None:
        """Raise `UsageError` while a run of that name waits or is being trained."""
        if (job := self._job(name)) and not job.is_finished:
            raise UsageError(f"{name} is being trained already", "stop it, or choose another name")

    def _names(self) -> list[str]:
        """Runs that can be looked at: those of jobs, then those on disk."""
        asked = [job.settings["name"] for job in self._jobs()]
        there = [run.name for run in run_folders(self.jobs.embeddings)]
        known = set(there)
        kept = [name for name in asked if name in known or (self._job(name) or Job("", "", {})).state != "done"]
        return list(dict.fromkeys([*kept, *(n for n in there if not embeddings.name_error(n))]))


def _discard(*, visible: bool) -> Any:
    """The button as it is before it is pressed."""
    return gr.update(value="Discard", variant="secondary", visible=visible)


def _large(sheet: Image.Image) -> Image.Image:
    """At least as large as the page shows it, without blur."""
    times = max(1, -(-900 // sheet.width))
    return sheet.resize((sheet.width * times, sheet.height * times), Image.Resampling.LANCZOS)


def _called(paths: Sequence[Path]) -> Any:
    """A name from what all files' names begin with, unless it says nothing."""
    stems = [path.stem.lower() for path in paths if path.suffix.lower() != ".txt"]
    first, last = (min(stems, default=""), max(stems, default=""))
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    common = re.sub(r"[\d\W_]+$", "", first[:same])
    if len(common) < 3 or common.strip("_-") in _PLAIN or len(stems) < 2:
        return gr.skip()
    return embeddings.safe_name(common)
