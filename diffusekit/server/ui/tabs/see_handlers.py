"""Handlers of the See tab: generate the visualisation, show it, and take over images of other tabs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import gradio as gr

from ...jobs import visualise
from ...jobs.job import Job
from .. import progress
from ..context import QUICK, UNLIMITED, Updates, error_notice
from ..html import render_notice, render_stage, to_data_url
from . import generate_form, restore, see_html
from .page import Page
from .see import FIELDS

# settings of an image without a field
REST = ("negative_prompt", "model", "width", "height", "embedding", "spacing", "guidance_rescale")


class SeeHandlers:
    """Handlers return what the page shows next, by component. None of them raises."""

    def __init__(self, page: Page):
        self.page, self.tab, self.form = page, page.see, page.see.form
        self.jobs, self.gallery = page.context.jobs, page.context.gallery
        tab, form = self.tab, self.form
        self.showing: list[Any] = [form.start, form.stop, form.prompt, tab.notice, tab.stage, tab.views, tab.lesson]
        self.showing += [tab.download, tab.walk, tab.visitor, *tab.figures.values()]

    def connect(self) -> None:
        """Connect the events of the tab, and the buttons that send images of other tabs here."""
        form, tab, generate, gallery = self.form, self.tab, self.page.generate, self.page.gallery
        gr.on([form.start.click, form.prompt.submit], self.on_start, form.inputs, self.showing, **UNLIMITED)
        form.stop.click(progress.stop_handler(self.jobs), tab.visitor, None, **QUICK)
        form.prompt.input(lambda: {}, None, form.rest, **QUICK)
        taken = [*form.inputs, tab.notice, self.page.tabs]
        generated = [generate.names, generate.chosen]
        generate.see.click(self.on_generated_image, generated, [*taken, generate.notice], **QUICK)
        gallery.open.see.click(self.on_gallery_image, gallery.name, [*taken, gallery.notice], **QUICK)

    async def on_start(self, rest: dict[str, Any], prompt: str, other: str, *values: Any) -> AsyncGenerator[Updates]:
        """Run the visualisation, and show it when it is finished."""
        form, tab = self.form, self.tab
        prompt, other = generate_form.prompt_or_example(prompt), (other or "").strip()
        visitor = progress.VisitorJob()
        start = {tab.notice: "", form.prompt: prompt, tab.visitor: visitor}
        yield self.busy(True) | start | {tab.stage: render_stage((), None, "starting …")}
        try:
            given = {"prompt": "", **dict(zip(FIELDS, values, strict=True))}
            settings = rest | generate_form.settings_from_form(given)
            settings.pop("prompt", None)
            settings["prompts"] = [prompt, other] if other else [prompt]
            async with contextlib.aclosing(self.follow(settings, visitor)) as updates:
                async for update in updates:
                    yield update
        except Exception as error:
            yield self.busy(False) | {tab.notice: error_notice(error), tab.stage: see_html.WELCOME}

    async def follow(self, settings: dict[str, Any], visitor: progress.VisitorJob) -> AsyncGenerator[Updates]:
        """Show the progress of the job, then its result."""
        previews: tuple[str, ...] = ()
        async with contextlib.aclosing(progress.follow_job(self.jobs, "visualise", settings, visitor)) as events:
            async for event, job in events:
                if job.is_finished:
                    yield self.busy(False) | await asyncio.to_thread(self.finish, job)
                    return
                if event and event.preview:
                    previews = tuple(map(to_data_url, event.preview))
                fraction = job.progress if job.steps and not job.note else None
                stage = render_stage(previews, fraction, progress.status_line(self.jobs, job))
                yield {self.tab.stage: stage}

    def finish(self, job: Job) -> Updates:
        """Show what a finished job has made."""
        tab = self.tab
        if job.state == "cancelled":
            return {tab.notice: render_notice("Stopped.")}
        files = visualise.list_files(self.jobs.outputs, job.id)
        lesson = files["lesson"].read_text(encoding="utf-8")
        figures = {
            image: gr.update(value=str(files[name]) if name in files else None) for name, image in tab.figures.items()
        }
        return figures | {
            tab.stage: "",
            tab.views: gr.Tabs(visible=True),
            tab.lesson: see_html.render_frame(lesson),
            tab.download: gr.update(value=str(files["lesson"]), visible=True),
            tab.walk: gr.Walkthrough(selected=0),
        }

    def busy(self, is_busy: bool) -> Updates:
        return {self.form.start: gr.update(visible=not is_busy), self.form.stop: gr.update(visible=is_busy)}

    # --- images of other tabs ---------------------------------------------------------------

    def on_generated_image(self, names: list[str], chosen: int) -> Updates:
        """Take over the settings of the image that is shown in the Generate tab."""
        try:
            return self.take_settings(self.jobs.outputs / names[min(chosen, len(names) - 1)])
        except Exception as error:
            return {self.page.generate.notice: error_notice(error)}

    def on_gallery_image(self, name: str) -> Updates:
        """Take over the settings of the image that is open in the Gallery tab."""
        try:
            return self.take_settings(self.gallery.path_of(name))
        except Exception as error:
            return {self.page.gallery.notice: error_notice(error)}

    def take_settings(self, path: Path) -> Updates:
        form = self.form
        values = restore.form_values(self.jobs, path, "all")
        hint = restore.describe_gaps(self.jobs, path, "all") or "press “Show every step”"
        return {
            form.prompt: values.get("prompt", ""),
            form.other: "",
            form.rest: {name: values[name] for name in REST if values.get(name)},
            self.tab.notice: render_notice("The settings of the image are restored.", hint),
            **{form.fields[name]: values[name] for name in FIELDS if name in values},
        } | self.page.open_tab("see")
