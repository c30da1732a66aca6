"""The Learn tab: upload images, train a token, follow its progress.

Training is a job of the one queue. It continues when the page is closed, and every visitor sees the same runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ....settings import InvertSettings
from ...jobs import invert
from ..context import PageContext
from . import learn_html

FILE_TYPES = [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".txt", ".caption"]
POLL_INTERVAL = 1.5  # seconds between updates of a run that trains
_SETTINGS = InvertSettings.model_fields


@dataclass(frozen=True)
class LearnForm:
    """What is trained. `target` is the setting `property`, `fields` are the others, `upload_id` the uploaded set."""

    files: gr.File
    table: gr.HTML
    upload_id: gr.State
    name: gr.Textbox
    init: gr.Textbox
    target: gr.Radio
    fields: dict[str, Any]
    estimate: gr.HTML
    start: gr.Button
    notice: gr.HTML

    @property
    def inputs(self) -> list[Any]:
        return [self.upload_id, self.name, self.init, self.target, *self.fields.values()]


@dataclass(frozen=True)
class LearnRun:
    """The run that is shown. `preview` names the images on the page, `asked` the run that would be discarded."""

    name: gr.Dropdown
    state: gr.HTML
    stop: gr.Button
    resume: gr.Button
    use: gr.Button
    discard: gr.Button
    slider: gr.ImageSlider
    details: gr.HTML
    timer: gr.Timer
    preview: gr.State
    asked: gr.State


@dataclass(frozen=True)
class LearnComponents:
    """The components of the tab."""

    tab: gr.Tab
    form: LearnForm
    run: LearnRun


def add(context: PageContext) -> LearnComponents:
    """Lay out the tab."""
    with (
        gr.Tab("Learn S*", id="learn", elem_id="tab-learn") as tab,
        gr.Row(elem_id="learning", elem_classes="bench"),
    ):
        with gr.Column(elem_classes="bench-form", min_width=0):
            form = _add_form(context)
        with gr.Column(elem_classes="bench-view", min_width=0):
            run = _add_run()
    return LearnComponents(tab, form, run)


def _add_form(context: PageContext) -> LearnForm:
    files = gr.File(
        label="Three to five images of one subject",
        file_count="multiple",
        file_types=FILE_TYPES,
        height=170,
        elem_id="photos",
        elem_classes="upload-container",
    )
    table = gr.HTML(elem_id="photo-table")
    name = gr.Textbox(
        label="Name",
        placeholder="my_cat",
        max_lines=1,
        max_length=100,
        elem_id="learn-name",
        info="Write it in prompts between angle brackets: <my_cat>.",
    )
    init = gr.Textbox(
        label="Initial word",
        placeholder="cat",
        max_lines=1,
        max_length=200,
        elem_id="learn-init",
        info="One word for the subject, where training starts. Leave empty for the suggestion.",
    )
    property_ = gr.Radio(
        [("Object", "object"), ("Style", "style")], value="object", label="Learn", elem_id="learn-kind"
    )
    with gr.Accordion("Settings", open=False, elem_id="learn-settings", elem_classes="card"):
        fields = _add_fields(context.settings.max_training_steps)
    steps, batch = fields["steps"].value, fields["batch"].value
    estimate = gr.HTML(learn_html.render_estimate((), context.settings.model, steps, batch), elem_id="learn-estimate")
    start = gr.Button("Learn", variant="primary", elem_id="learn-go")
    notice = gr.HTML(elem_id="learn-notice")
    return LearnForm(files, table, gr.State(""), name, init, property_, fields, estimate, start, notice)


def _add_fields(max_steps: int) -> dict[str, Any]:
    """The settings, by name."""
    fields: dict[str, Any] = {}
    with gr.Row(elem_classes="pair"):
        fields["steps"] = _slider("Max steps", 20, max_steps, min(400, max_steps), 20, elem_id="learn-steps")
        fields["vectors"] = _slider("Vectors", 1, invert.LIMITS["vectors"], 1)
    with gr.Row(elem_classes="pair"):
        fields["preview_every"] = gr.Number(
            None,
            label="Validate every",
            placeholder="automatic",
            precision=0,
            minimum=0,
            min_width=0,
            elem_id="learn-preview",
        )
        fields["batch"] = _slider("Batch size", 1, invert.LIMITS["batch"], 4)
    with gr.Row(elem_classes="pair"):
        fields["learning_rate"] = _text("learning_rate", "Learning rate", placeholder="model default", info=None)
        fields["seed"] = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=0)
    with gr.Row(elem_classes="pair"):
        help_text = _SETTINGS["patience"].description
        fields["patience"] = gr.Number(3, label="Patience", precision=0, minimum=0, min_width=0, info=help_text)
        fields["token"] = _text("token", "Token", value="S*", max_length=60)
    fields["crops"] = _slider("Crops per image", 1, invert.LIMITS["crops"], 1, info=_SETTINGS["crops"].description)
    fields["flip"] = gr.Checkbox(label="Flip horizontally", info=_SETTINGS["flip"].description)
    fields["captions"] = gr.Textbox(
        label="Captions",
        lines=3,
        max_lines=20,
        max_length=20_000,
        elem_id="learn-captions",
        placeholder="a photo of {} on a sofa",
        info="One line for each image, in order; {} stands for the token. Leave empty for the built-in templates.",
    )
    return fields


def _slider(label: str, low: int, high: int, value: int, step: int = 1, **options: Any) -> gr.Slider:
    return gr.Slider(low, high, value, step=step, label=label, min_width=0, buttons=[], **options)


def _text(setting: str, label: str, **options: Any) -> gr.Textbox:
    options = {"info": _SETTINGS[setting].description} | options
    return gr.Textbox(label=label, max_lines=1, min_width=0, **options)


def _add_run() -> LearnRun:
    name = gr.Dropdown([], label="Run", visible=False, elem_id="learn-run", allow_custom_value=False)
    state = gr.HTML(learn_html.WELCOME, elem_id="learn-state")
    with gr.Row(elem_classes="tools"):
        stop = gr.Button("Stop", variant="stop", visible=False, min_width=0, elem_id="learn-stop")
        resume = gr.Button("Resume", visible=False, min_width=0, elem_id="learn-resume")
        use = gr.Button("Use in Generate", variant="primary", visible=False, min_width=0, elem_id="learn-use")
        discard = gr.Button("Discard", visible=False, min_width=0, elem_id="learn-discard")
    slider = gr.ImageSlider(
        label="Validation images: initial word and learned token",
        interactive=False,
        visible=False,
        buttons=["fullscreen"],
        elem_id="learn-slider",
        max_height=520,
    )
    details = gr.HTML(elem_id="learn-facts")
    timer = gr.Timer(POLL_INTERVAL, active=False)
    return LearnRun(name, state, stop, resume, use, discard, slider, details, timer, gr.State(""), gr.State(""))
