"""The See tab: how a picture comes out of noise, for any prompt, for two side by side, or for a picture that
is here already; every step of it under a slider, and the same told part by part for newcomers.

Other tabs send their pictures here by buttons that this one puts beside theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from .... import metadata
from ....errors import UsageError
from ....settings import GenerateSettings
from ...jobs import visualise
from ...jobs.job import Job
from ...jobs.queue import Jobs
from .. import html, progress
from ..context import PRIVATE, QUICK, House, error_notice
from ..html import to_data_url
from . import generate_form, see_html

Answer = dict[Any, Any]
FIELDS = ("steps", "guidance_scale", "sampler", "seed")
STEPS = 20


@dataclass
class Parts:
    """The components. `run` is what goes on, `rest` the settings of a picture that have no field."""

    prompt: gr.Textbox
    other: gr.Textbox
    fields: dict[str, Any]
    go: gr.Button
    stop: gr.Button
    notice: gr.HTML
    stage: gr.HTML
    views: gr.Tabs
    lesson: gr.HTML
    download: gr.DownloadButton
    walk: gr.Walkthrough
    exhibits: dict[str, gr.Image]
    run: gr.State
    rest: gr.State

    @property
    def all(self) -> list[Any]:
        return [
            self.go,
            self.stop,
            self.notice,
            self.stage,
            self.views,
            self.lesson,
            self.download,
            self.walk,
            *self.exhibits.values(),
            self.run,
            self.prompt,
        ]

    @property
    def taking(self) -> list[Any]:
        return [self.prompt, self.other, *self.fields.values(), self.rest, self.notice]


def add(house: House) -> None:
    """Lay out the tab."""
    with gr.Row(elem_id="seeing", elem_classes="bench"):
        with gr.Column(elem_classes="bench-form", min_width=0):
            prompt = gr.Textbox(
                label="Prompt",
                placeholder="What shall come out of the noise? Left empty: an example.",
                lines=2,
                max_lines=8,
                max_length=house.settings.max_prompt,
                elem_id="see-prompt",
            )
            other = gr.Textbox(
                label="Beside it",
                placeholder="Left empty: one picture",
                lines=1,
                max_lines=8,
                max_length=house.settings.max_prompt,
                elem_id="see-other",
                info="Another prompt, from the same noise: what does a word change?",
            )
            with gr.Accordion("Settings", open=False, elem_id="see-settings", elem_classes="card"):
                fields = _fields(house)
            with gr.Row(elem_classes="tools"):
                go = gr.Button("Show how it is made", variant="primary", elem_id="see-go", min_width=0)
                stop = gr.Button("Stop", variant="stop", visible=False, elem_id="see-stop", min_width=0)
            notice = gr.HTML(elem_id="see-notice")
        with gr.Column(elem_classes="bench-view", min_width=0):
            stage = gr.HTML(see_html.WELCOME, elem_id="see-stage")
            with gr.Tabs(visible=False, elem_id="see-views") as views:
                with gr.Tab("Every step", id="steps"):
                    lesson = gr.HTML(elem_id="lesson")
                    download = gr.DownloadButton("Download this page", visible=False, elem_id="lesson-file")
                with gr.Tab("A walk for newcomers", id="walk"):
                    walk, exhibits = _walk()
    house.places["see.parts"] = Parts(
        prompt,
        other,
        fields,
        go,
        stop,
        notice,
        stage,
        views,
        lesson,
        download,
        walk,
        exhibits,
        gr.State(None),
        gr.State({}),
    )


def _fields(house: House) -> dict[str, Any]:
    with gr.Row(elem_classes="pair"):
        steps = gr.Slider(
            2, visualise.MAX_STEPS, STEPS, step=1, label="Steps", min_width=0, buttons=[], elem_id="see-steps"
        )
        guidance = house.places["form"]["guidance_scale"].value
        scale = gr.Slider(0, 20, guidance, step=0.1, label="Guidance", min_width=0, buttons=[])
    with gr.Row(elem_classes="pair"):
        sampler = gr.Dropdown(
            generate_form.sampler_choices(),
            value=GenerateSettings.model_fields["sampler"].default,
            label="Sampler",
            min_width=0,
        )
        seed = gr.Textbox(label="Seed", placeholder="by chance", max_lines=1, min_width=0, elem_id="see-seed")
    return dict(zip(FIELDS, (steps, scale, sampler, seed), strict=True))


def _walk() -> tuple[gr.Walkthrough, dict[str, gr.Image]]:
    """One picture, part by part; each part is left by a button for the next."""
    shown: dict[str, gr.Image] = {}
    buttons: list[gr.Button] = []
    with gr.Walkthrough(selected=0, elem_id="walk") as walk:
        for number, part in enumerate(see_html.WALK):
            with gr.Step(part.title, id=number):
                gr.HTML(see_html.render_part(part))
                shown[part.figure] = gr.Image(
                    label=part.title,
                    show_label=False,
                    interactive=False,
                    type="filepath",
                    buttons=["fullscreen"],
                    elem_id=f"walk-{part.figure}",
                    elem_classes="exhibit",
                )
                last = number + 1 == len(see_html.WALK)
                buttons.append(gr.Button("From the beginning" if last else "Next", min_width=0))
    for number, button in enumerate(buttons):
        to = (number + 1) % len(buttons)
        button.click(lambda to=to: gr.Walkthrough(selected=to), None, walk, **QUICK)
    return walk, shown


def connect(house: House) -> None:
    """Wire the tab up, and send it the pictures of the others."""
    parts: Parts = house.places["see.parts"]
    free: dict[str, Any] = PRIVATE | {"concurrency_limit": None, "show_progress": "hidden"}
    inputs = [parts.rest, parts.prompt, parts.other, *parts.fields.values()]
    gr.on([parts.go.click, parts.prompt.submit], _shower(house, parts), inputs, parts.all, **free)

    parts.stop.click(progress.stop_handler(house.jobs), parts.run, None, **QUICK)
    parts.prompt.input(lambda: {}, None, parts.rest, **QUICK)
    _send(house, parts)


def _shower(house: House, parts: Parts) -> Any:
    """The handler that has the lesson made, and shows it."""
    jobs = house.jobs

    async def show(rest: dict[str, Any], prompt: str, other: str, *values: Any) -> AsyncGenerator[Answer]:
        prompt = (prompt or "").strip() or generate_form.example_prompt()
        run = progress.VisitorJob()
        yield _busy(parts, True) | {
            parts.notice: "",
            parts.prompt: prompt,
            parts.run: run,
            parts.stage: html.render_stage((), None, "starting …"),
        }
        try:
            given = rest | generate_form.settings_of({"prompt": "", **dict(zip(FIELDS, values, strict=True))})
            given["prompts"] = [prompt, *([other.strip()] if (other or "").strip() else [])]
            given.pop("prompt", None)
            live: tuple[str, ...] = ()
            job: Job | None = None
            async with contextlib.aclosing(progress.follow_job(jobs, "visualise", given, run)) as events:
                async for event, job in events:
                    if event and event.preview:
                        live = tuple(map(to_data_url, event.preview))
                    share = job.progress if job.steps and not job.note else None
                    words = progress.status_line(jobs, job)
                    yield {parts.stage: html.render_stage(live, share, words)}
            assert job is not None, "a job ends with an event"
            yield _busy(parts, False) | await asyncio.to_thread(_made, jobs, parts, job)
        except Exception as error:
            yield _busy(parts, False) | {parts.notice: error_notice(error), parts.stage: see_html.WELCOME}

    return show


def _busy(parts: Parts, busy: bool) -> Answer:
    return {parts.go: gr.update(visible=not busy), parts.stop: gr.update(visible=busy)}


def _made(jobs: Jobs, parts: Parts, job: Job) -> Answer:
    """What a job that is over has to show."""
    if job.state == "cancelled":
        return {parts.notice: html.render_notice("Stopped.")}
    found = visualise.list_files(jobs.outputs, job.id)
    page = found["lesson"].read_text(encoding="utf-8")
    exhibits = {
        image: gr.update(value=str(found[name]) if name in found else None) for name, image in parts.exhibits.items()
    }
    return exhibits | {
        parts.stage: "",
        parts.views: gr.Tabs(visible=True),
        parts.lesson: see_html.render_frame(page),
        parts.download: gr.update(value=str(found["lesson"]), visible=True),
        parts.walk: gr.Walkthrough(selected=0),
    }


def _send(house: House, parts: Parts) -> None:
    """A button beside the result of Generate and beside the picture of Gallery."""
    places, tabs, jobs = house.places, house.tabs, house.jobs
    assert tabs is not None
    with places["actions"]:
        made = gr.Button("See how", size="sm", min_width=0, elem_id="see-made")
    with places["shown.actions"]:
        shown = gr.Button("See how", size="sm", min_width=0, elem_id="see-shown")

    def take(path: Path) -> Answer:
        settings = metadata.read(path).settings
        if settings is None:
            raise UsageError("this picture does not say how it was made", "choose another one")
        found = generate_form.values_of(settings, models=list(jobs.models.names()), seed=True)
        own = ("negative_prompt", "model", "width", "height", "embedding")
        rest = {name: value for name, value in found.items() if name in own and value}
        return {
            parts.prompt: settings.prompt,
            parts.other: "",
            parts.rest: rest,
            parts.notice: html.render_notice("These are the settings of the picture: press the button."),
            tabs: gr.Tabs(selected="see"),
            **{parts.fields[name]: found[name] for name in FIELDS if name in found},
        }

    def of_made(names: list[str], chosen: int) -> Answer:
        try:
            return take(jobs.outputs / names[min(chosen, len(names) - 1)])
        except Exception as error:
            return {places["notice"]: error_notice(error)}

    def of_shown(name: str) -> Answer:
        try:
            return take(house.album.path_of(name))
        except Exception as error:
            return {places["gallery.parts"].notice: error_notice(error)}

    outputs = [*parts.taking, tabs]
    made.click(of_made, [places["made"], places["chosen"]], [*outputs, places["notice"]], **QUICK)
    shown.click(of_shown, places["shown"], [*outputs, places["gallery.parts"].notice], **QUICK)
