"""Handlers of the Learn tab: take the images, start, stop, resume and discard runs, show one of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from .... import embeddings
from ....errors import DiffusekitError, UsageError
from ....inversion.dataset import TEXT_SUFFIXES
from ....inversion.run_folder import INIT_STEP, RunFolder, RunLog, image_sheet
from ...storage import tokens, trash, uploads
from .. import prompt_info
from ..context import QUICK, SLOW, Updates, error_notice, errors_as_notice
from ..html import render_notice
from . import learn_html
from .learn_runs import TrainingRuns
from .page import Page

SLIDER_WIDTH = 900  # pixels
_CAMERA_NAMES = ("img", "dsc", "image", "photo", "pic", "picture", "pxl", "screenshot", "download")


class LearnHandlers:
    """Handlers return what the page shows next, by component. None of them raises.

    `uploading` and `showing` are the components that show the uploaded images and the run.
    """

    def __init__(self, page: Page):
        self.page, self.form, self.run, self.notice = page, page.learn.form, page.learn.run, page.learn.form.notice
        self.jobs, self.model = page.context.jobs, page.context.settings.model
        self.state_folder = Path(page.context.settings.state)
        self.runs = TrainingRuns(self.jobs)
        form, run = self.form, self.run
        self.uploading: list[Any] = [form.table, form.upload_id, form.name, form.fields["captions"], form.notice]
        self.showing: list[Any] = [run.name, run.state, run.stop, run.resume, run.use, run.discard, run.slider]
        self.showing += [run.details, run.timer, run.preview, run.asked, form.notice]

    def connect(self) -> None:
        """Connect the events of the tab to their handlers."""
        form, run, generate = self.form, self.run, self.page.generate.form
        form.files.upload(self.on_upload, [form.files, form.name], self.uploading, **SLOW)
        form.files.clear(self.on_clear, None, self.uploading, **QUICK)
        form.name.change(self.suggest_init, form.name, form.init, trigger_mode="always_last", **QUICK)
        size = [form.fields["steps"], form.fields["batch"]]
        changes = [field.change for field in size]
        gr.on(changes, self.estimate, size, form.estimate, trigger_mode="always_last", **QUICK)
        form.start.click(self.on_start, form.inputs, self.showing, **QUICK)

        shown = [run.name, run.preview]
        run.stop.click(self.on_stop, shown, self.showing, **QUICK)
        run.resume.click(self.on_resume, shown, self.showing, **QUICK)
        run.discard.click(self.on_discard, [*shown, run.asked], self.showing, **QUICK)
        run.name.input(self.on_select, shown, self.showing, **QUICK)
        self.page.learn.tab.select(self.on_open_tab, shown, self.showing, **QUICK)
        run.timer.tick(self.on_tick, shown, [*self.showing, *generate.learned], **QUICK)
        used = [generate.prompt, self.page.tabs]
        run.use.click(self.page.use_token, [run.name, generate.prompt], used, **QUICK).then(
            lambda: generate.refresh_learned(self.jobs.embeddings), None, generate.learned, **QUICK
        )

    # --- the images -------------------------------------------------------------------------

    def on_upload(self, files: list[str] | None, name: str) -> Updates:
        """Store the uploaded images, and show which of them can be used."""
        try:
            paths = [Path(path) for path in files or ()]
            uploaded = uploads.store(self.state_folder, paths)
            used = {str(job.settings.get("pictures")) for job in self.runs.list_jobs()}
            uploads.prune(self.state_folder, used)
        except Exception as error:
            return self.on_clear() | {self.notice: error_notice(error)}
        captions = "\n".join(uploaded.captions) if any(uploaded.captions) else ""
        suggestion = None if name.strip() else suggest_name(paths)
        return {
            self.form.table: learn_html.render_uploads(uploaded),
            self.form.upload_id: uploaded.id,
            self.form.name: suggestion or gr.skip(),
            self.form.fields["captions"]: captions,
            self.notice: "",
        }

    def on_clear(self) -> Updates:
        """Forget the uploaded images."""
        return {self.form.table: "", self.form.upload_id: "", self.notice: ""}

    def suggest_init(self, name: str) -> Any:
        """Show the initial word that training would use for this name."""
        word = "cat"
        if self.jobs.is_ready and name.strip():  # transformers must not be imported by two threads at once
            try:
                word = prompt_info.suggest_init(self.model, name)
            except DiffusekitError:
                pass
        return gr.update(placeholder=word)

    def estimate(self, steps: float, batch: float) -> str:
        return learn_html.render_estimate(self.runs.list_jobs(), self.model, int(steps), int(batch))

    # --- runs -------------------------------------------------------------------------------

    @errors_as_notice
    def on_start(self, upload_id: str, name: str, init: str, property_: str, *values: Any) -> Updates:
        """Queue a training run, and show it."""
        if not upload_id:
            raise UsageError("there are no images yet", "upload three to five images of one subject")
        if not (name := name.strip()):
            raise UsageError("the token has no name yet", "choose one like my_cat")
        self.runs.check_idle(name)
        fields = dict(zip(self.form.fields, values, strict=True))
        captions = (fields.pop("captions") or "").splitlines()
        pictures = uploads.with_captions(self.state_folder, upload_id, captions)
        settings = {key: value for key, value in fields.items() if value not in (None, "")}
        settings |= {"pictures": pictures, "name": name, "property": property_}
        if property_ == "style":
            settings["preview"] = f"a painting in the style of {settings.get('token', 'S*')}"
        if init.strip():
            settings["init"] = init.strip()
        job = self.jobs.submit("invert", settings, owner="page")
        return self.show(job.settings["name"], "") | {self.notice: ""}

    @errors_as_notice
    def on_stop(self, name: str, preview: str) -> Updates:
        """Ask a run to save a checkpoint and stop."""
        if (job := self.runs.find_job(name)) and not job.is_finished:
            self.jobs.cancel(job.id)
        return self.show(name, preview)

    @errors_as_notice
    def on_resume(self, name: str, preview: str) -> Updates:
        """Continue a run that was stopped."""
        job = self.runs.find_job(name)
        if job is None:
            raise UsageError("this run was not started on this server", "resume it where it was started, with `resume`")
        self.runs.check_idle(name)
        self.jobs.submit("invert", job.settings | {"resume": True}, owner="page")
        return self.show(name, preview)

    @errors_as_notice
    def on_discard(self, name: str, preview: str, asked: str) -> Updates:
        """Move an unfinished run to the trash: the first press says what is lost, the second does it."""
        run, jobs = self.runs.folder(name), [job for job in self.runs.list_jobs() if job.settings["name"] == name]
        if run.has_token or not all(job.is_finished for job in jobs):
            raise UsageError(f"{name} still trains or is finished", "stop it, or remove it in the Tokens tab")
        if asked != name:
            message = f"{name} has {run.read_log().step} steps, {trash.measure(run.path)}."
            button = gr.update(value="Discard run", variant="stop")
            notice = render_notice(message, "Press again to discard it.")
            return {self.run.discard: button, self.run.asked: name, self.run.state: notice}
        tokens.remove_run(self.jobs.embeddings, name)
        for job in jobs:
            self.jobs.forget(job.id)
        notice = render_notice(f"{name} is discarded.", "Its files are in the trash of the Tokens tab.")
        return self.show("", preview) | {self.run.state: notice + learn_html.WELCOME}

    @errors_as_notice
    def on_select(self, name: str | None, preview: str) -> Updates:
        return self.show(name or "", preview)

    @errors_as_notice
    def on_tick(self, name: str | None, preview: str) -> Updates:
        """Update the run that is shown. When it is finished, the Generate tab learns of its token."""
        updates = self.show(name or "", preview)
        if name and self.runs.folder(name).has_token:
            updates |= self.page.generate.form.refresh_learned(self.jobs.embeddings)
        return updates

    @errors_as_notice
    def on_open_tab(self, name: str | None, preview: str) -> Updates:
        """Show the run that trains now, or the one that was chosen."""
        training = [job.settings["name"] for job in self.runs.list_jobs() if not job.is_finished]
        return self.show(training[-1] if training else name or "", preview)

    # --- what is shown ----------------------------------------------------------------------

    def show(self, name: str, preview: str) -> Updates:
        """Everything about one run. The images are sent only if the page does not show them yet."""
        shown, names = self.run, self.runs.names()
        name = name if name in names else ""
        choice = gr.update(choices=names, value=name or None, visible=bool(names))
        if not name:
            return self.hide() | {shown.name: choice, shown.state: learn_html.WELCOME, shown.details: ""}
        run, job = self.runs.folder(name), self.runs.find_job(name)
        log, is_learned = run.read_log(), run.has_token
        is_training = job is not None and not job.is_finished
        is_stopped = run.has_progress and not is_learned and not is_training
        ahead = self.jobs.count_ahead(job.id) if job else 0
        updates = {
            shown.name: choice,
            shown.state: learn_html.render_state(run, job, ahead, self.runs.seconds_left(job)),
            shown.details: learn_html.render_details(log, job.settings["steps"] if job else log.step),
            shown.stop: gr.update(visible=is_training),
            shown.resume: gr.update(visible=is_stopped and job is not None),
            shown.use: gr.update(visible=is_learned),
            shown.discard: discard_button(visible=not (is_learned or is_training)),
            shown.asked: "",
            shown.timer: gr.Timer(active=is_training),
        }
        return updates | self.show_images(run, log, preview)

    def hide(self) -> Updates:
        shown, hidden = self.run, gr.update(visible=False)
        return {
            shown.stop: hidden,
            shown.resume: hidden,
            shown.use: hidden,
            shown.slider: hidden,
            shown.timer: gr.Timer(active=False),
            shown.preview: "",
            shown.discard: discard_button(visible=False),
            shown.asked: "",
        }

    def show_images(self, run: RunFolder, log: RunLog, preview: str) -> Updates:
        """Validation images under a slider: of the initial word, and of the best or latest step."""
        files = run.validation_images()
        if not files:
            return {self.run.slider: gr.update(visible=False), self.run.preview: ""}
        best = log.best.get("step") if run.has_token else None
        step, path = next((file for file in files if file[0] == best), files[-1])
        current = f"{run.name}:{step}"
        if current == preview:
            return {}
        try:
            pair = (enlarge(image_sheet(files[0][1])), enlarge(image_sheet(path)))
        except (DiffusekitError, OSError):  # it is being written
            return {}
        left = "initial word" if files[0][0] == INIT_STEP else f"step {files[0][0]}"
        right = f"step {step}" if step else "the same, until the first validation"
        update = gr.update(value=pair, visible=True, label=f"Left: {left}. Right: {right}.")
        return {self.run.slider: update, self.run.preview: current}


def discard_button(*, visible: bool) -> Any:
    """The button before it is pressed."""
    return gr.update(value="Discard", variant="secondary", visible=visible)


def enlarge(sheet: Image.Image) -> Image.Image:
    """Scale up by a whole number, so that the page does not blur it."""
    times = max(1, -(-SLIDER_WIDTH // sheet.width))
    return sheet.resize((sheet.width * times, sheet.height * times), Image.Resampling.LANCZOS)


def suggest_name(paths: Sequence[Path]) -> str | None:
    """A name from what all file names begin with; None if that is too short or a camera's."""
    stems = [path.stem.lower() for path in paths if path.suffix.lower() not in TEXT_SUFFIXES]
    first, last = min(stems, default=""), max(stems, default="")
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    common = re.sub(r"[\d\W_]+$", "", first[:length])
    if len(common) < 3 or common.strip("_-") in _CAMERA_NAMES or len(stems) < 2:
        return None
    return embeddings.safe_name(common)
