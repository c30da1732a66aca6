"""The Learn tab: pictures of a thing go in, a word for it comes out, and one can watch.

Learning is a job of the one queue: it goes on when the tab is closed, and every visitor sees the same runs.
Lends in `house.places`: `learn.run` (the choice of the run that is shown).
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from ....settings import InvertSettings
from ...jobs import invert
from ..context import PRIVATE, QUICK, House
from . import learn_html
from .learn_handlers import PICTURES, Form, Lab, Shown

BEAT = 1.5  # seconds between looks at a run
_SAYS = InvertSettings.model_fields


def add(house: House) -> None:
    """Lay out the tab and wire it up."""
    with gr.Row(elem_id="learning", elem_classes="bench"):
        with gr.Column(elem_classes="bench-form", min_width=0):
            form = _form(house)
        with gr.Column(elem_classes="bench-view", min_width=0):
            shown = _shown()
    house.places |= {"learn.run": shown.run, "learn.lab": Lab(house, form, shown)}


def connect(house: House) -> None:
    """Wire the tab up, and what it does to the Generate tab."""
    lab: Lab = house.places["learn.lab"]
    form, shown = lab.form, lab.shown
    slow: dict[str, Any] = PRIVATE | {"concurrency_limit": 2, "show_progress": "hidden"}
    form.files.upload(lab.take, [form.files, form.name], lab.taking, **slow)
    form.files.clear(lab.forget, None, lab.taking, **QUICK)
    form.name.change(lab.suggest, form.name, form.init, trigger_mode="always_last", **QUICK)
    gr.on(
        [form.steps.change, form.batch.change],
        lab.guess,
        [form.steps, form.batch],
        form.estimate,
        trigger_mode="always_last",
        **QUICK,
    )
    form.go.click(lab.begin, form.inputs, lab.looking, **QUICK)
    now = [shown.run, shown.seen]
    shown.stop.click(lab.stop, now, lab.looking, **QUICK)
    shown.resume.click(lab.resume, now, lab.looking, **QUICK)
    shown.discard.click(lab.discard, [*now, shown.asked], lab.looking, **QUICK)
    shown.run.input(lab.look, now, lab.looking, **QUICK)
    house.places["tab.learn"].select(lab.enter, now, lab.looking, **QUICK)
    prompt, tabs = house.places["form"]["prompt"], house.tabs
    assert tabs is not None
    fresh, outputs = house.places["refresh"]
    shown.timer.tick(lab.beat, now, [*lab.looking, *outputs], **QUICK)
    shown.use.click(lab.use, [shown.run, prompt], [prompt, tabs, form.notice], **QUICK).then(
        fresh, None, outputs, **QUICK
    )


def _form(house: House) -> Form:
    files = gr.File(
        label="Three to five pictures of one thing",
        file_count="multiple",
        file_types=PICTURES,
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
        info="In prompts you write it in angle brackets: <my_cat>.",
    )
    init = gr.Textbox(
        label="What it is, in a word",
        placeholder="cat",
        max_lines=1,
        max_length=200,
        elem_id="learn-init",
        info="Learning starts from this word. Left empty: from the one shown.",
    )
    kind = gr.Radio(
        [("A thing", "object"), ("A style", "style")],
        value="object",
        label="What is learned",
        elem_id="learn-kind",
    )
    with gr.Accordion("Settings", open=False, elem_id="learn-settings", elem_classes="card"):
        fields = _fields(house.settings.max_training_steps)
    steps, batch = fields["steps"].value, fields["batch"].value
    estimate = gr.HTML(learn_html.render_estimate((), house.settings.model, steps, batch), elem_id="learn-estimate")
    go = gr.Button("Learn", variant="primary", elem_id="learn-go")
    notice = gr.HTML(elem_id="learn-notice")
    return Form(files, table, gr.State(""), name, init, kind, fields, estimate, go, notice)


def _fields(most: int) -> dict[str, Any]:
    """Components by the names of settings; `most` steps may be asked for."""
    found: dict[str, Any] = {}
    with gr.Row(elem_classes="pair"):
        found["steps"] = gr.Slider(
            20,
            most,
            min(400, most),
            step=20,
            label="Steps at most",
            min_width=0,
            buttons=[],
            elem_id="learn-steps",
        )
        found["vectors"] = gr.Slider(1, invert.LIMITS["vectors"], 1, step=1, label="Vectors", min_width=0, buttons=[])
    with gr.Row(elem_classes="pair"):
        found["preview_every"] = gr.Slider(
            0,
            500,
            100,
            step=10,
            label="Steps between previews",
            min_width=0,
            buttons=[],
            elem_id="learn-preview",
        )
        found["batch"] = gr.Slider(
            1,
            invert.LIMITS["batch"],
            4,
            step=1,
            label="Pictures per step",
            min_width=0,
            buttons=[],
        )
    return found | _finer()


def _finer() -> dict[str, Any]:
    """The settings that are seldom changed."""
    found: dict[str, Any] = {}
    with gr.Row(elem_classes="pair"):
        found["learning_rate"] = gr.Textbox(
            label="Learning rate", placeholder="suits the model", max_lines=1, min_width=0
        )
        found["seed"] = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=0)
    with gr.Row(elem_classes="pair"):
        found["patience"] = gr.Number(
            3,
            label="Patience",
            precision=0,
            minimum=0,
            min_width=0,
            info=_SAYS["patience"].description,
        )
        found["token"] = gr.Textbox(
            "S*",
            label="Token",
            max_lines=1,
            max_length=60,
            min_width=0,
            info=_SAYS["token"].description,
        )
    found["crops"] = gr.Slider(
        1,
        invert.LIMITS["crops"],
        1,
        step=1,
        label="Crops per picture",
        info=_SAYS["crops"].description,
        min_width=0,
        buttons=[],
    )
    found["flip"] = gr.Checkbox(label="Mirror", info=_SAYS["flip"].description)
    found["captions"] = gr.Textbox(
        label="Captions",
        lines=3,
        max_lines=20,
        max_length=20_000,
        elem_id="learn-captions",
        placeholder="a picture of {} on a sofa",
        info="A line for each picture, in order; {} is the thing. Left empty: the paper's own.",
    )
    return found


def _shown() -> Shown:
    run = gr.Dropdown([], label="Run", visible=False, elem_id="learn-run", allow_custom_value=False)
    state = gr.HTML(learn_html.WELCOME, elem_id="learn-state")
    with gr.Row(elem_classes="tools"):
        stop = gr.Button("Stop", variant="stop", visible=False, min_width=0, elem_id="learn-stop")
        resume = gr.Button("Resume", visible=False, min_width=0, elem_id="learn-resume")
        use = gr.Button("Use it in Generate", variant="primary", visible=False, min_width=0, elem_id="learn-use")
        discard = gr.Button("Discard", visible=False, min_width=0, elem_id="learn-discard")
    slider = gr.ImageSlider(
        label="The first word, and what is learned now",
        interactive=False,
        visible=False,
        buttons=["fullscreen"],
        elem_id="learn-slider",
        max_height=520,
    )
    facts = gr.HTML(elem_id="learn-facts")
    timer = gr.Timer(BEAT, active=False)
    states = (gr.State(""), gr.State(""))
    return Shown(run, state, stop, resume, use, discard, slider, facts, timer, *states)
