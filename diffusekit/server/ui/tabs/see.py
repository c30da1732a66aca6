"""The See tab: how an image is generated, step by step, for one prompt, two side by side, or an existing image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ...jobs import visualise
from ..context import QUICK, PageContext
from . import see_html
from .generate_form import guidance_slider, model_defaults, sampler_dropdown, seed_box

FIELDS = ("steps", "guidance_scale", "sampler", "seed")


@dataclass(frozen=True)
class SeeForm:
    """What is shown. `fields` are components by setting, `rest` the settings of an image that have no field."""

    prompt: gr.Textbox
    other: gr.Textbox
    fields: dict[str, Any]
    start: gr.Button
    stop: gr.Button
    rest: gr.State

    @property
    def inputs(self) -> list[Any]:
        return [self.rest, self.prompt, self.other, *self.fields.values()]


@dataclass(frozen=True)
class SeeComponents:
    """The components of the tab. `figures` are the images of the walk by name, `visitor` holds what runs."""

    form: SeeForm
    notice: gr.HTML
    stage: gr.HTML
    views: gr.Tabs
    lesson: gr.HTML
    download: gr.DownloadButton
    walk: gr.Walkthrough
    figures: dict[str, gr.Image]
    visitor: gr.State


def add(context: PageContext) -> SeeComponents:
    """Lay out the tab. Only tabs may be children of the row of tabs, so states belong inside, too."""
    with gr.Tab("See", id="see", elem_id="tab-see"), gr.Row(elem_id="seeing", elem_classes="bench"):
        with gr.Column(elem_classes="bench-form", min_width=0):
            form = _add_form(context)
            notice = gr.HTML(elem_id="see-notice")
        with gr.Column(elem_classes="bench-view", min_width=0):
            stage = gr.HTML(see_html.WELCOME, elem_id="see-stage")
            with gr.Tabs(visible=False, elem_id="see-views") as views:
                with gr.Tab("Every step", id="steps"):
                    lesson = gr.HTML(elem_id="lesson")
                    download = gr.DownloadButton("Download this page", visible=False, elem_id="lesson-file")
                with gr.Tab("Step-by-step introduction", id="walk"):
                    walk, figures = _add_walk()
        return SeeComponents(form, notice, stage, views, lesson, download, walk, figures, gr.State(None))


def _add_form(context: PageContext) -> SeeForm:
    prompt = gr.Textbox(
        label="Prompt",
        placeholder="What should the image show? Leave empty for an example.",
        lines=2,
        max_lines=8,
        max_length=context.settings.max_prompt,
        elem_id="see-prompt",
    )
    other = gr.Textbox(
        label="Compare with",
        placeholder="Leave empty for one image",
        lines=1,
        max_lines=8,
        max_length=context.settings.max_prompt,
        elem_id="see-other",
        info="Another prompt from the same noise, to see what a word changes.",
    )
    with gr.Accordion("Settings", open=False, elem_id="see-settings", elem_classes="card"):
        fields = _add_fields(context)
    with gr.Row(elem_classes="tools"):
        start = gr.Button("Show every step", variant="primary", elem_id="see-go", min_width=0)
        stop = gr.Button("Stop", variant="stop", visible=False, elem_id="see-stop", min_width=0)
    return SeeForm(prompt, other, fields, start, stop, gr.State({}))


def _add_fields(context: PageContext) -> dict[str, Any]:
    _, suited, _ = model_defaults(context.settings.model)
    most = visualise.MAX_STEPS
    with gr.Row(elem_classes="pair"):
        steps = gr.Slider(1, most, suited.steps, step=1, label="Steps", min_width=0, buttons=[], elem_id="see-steps")
        scale = guidance_slider(suited.guidance_scale)
    with gr.Row(elem_classes="pair"):
        sampler, seed = sampler_dropdown(suited.sampler), seed_box("see-seed")
    return dict(zip(FIELDS, (steps, scale, sampler, seed), strict=True))


def _add_walk() -> tuple[gr.Walkthrough, dict[str, gr.Image]]:
    """One image, part by part; a button leads to the next part."""
    figures: dict[str, gr.Image] = {}
    buttons: list[gr.Button] = []
    with gr.Walkthrough(selected=0, elem_id="walk") as walk:
        for number, part in enumerate(see_html.WALK):
            with gr.Step(part.title, id=number):
                gr.HTML(see_html.render_part(part))
                figures[part.figure] = gr.Image(
                    label=part.title,
                    show_label=False,
                    interactive=False,
                    type="filepath",
                    buttons=["fullscreen"],
                    elem_id=f"walk-{part.figure}",
                    elem_classes="exhibit",
                )
                is_last = number + 1 == len(see_html.WALK)
                buttons.append(gr.Button("Start again" if is_last else "Next", min_width=0))
    for number, button in enumerate(buttons):
        target = (number + 1) % len(buttons)
        button.click(lambda target=target: gr.Walkthrough(selected=target), None, walk, **QUICK)
    return walk, figures
