"""The Generate tab: prompt, buttons, the stage where the image appears, settings and grid folded away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..context import IMAGE_TYPES, PageContext, small_button
from . import generate_html, restore
from .generate_form import GenerateForm, GridForm, add_form, add_grid
from .start_form import StartForm, add_start_form


@dataclass(frozen=True)
class GenerateComponents:
    """The components of the tab, and what the server remembers of one visitor.

    `see` shows the chosen image in the See tab. `visitor` holds what runs, `names` the finished images as paths
    below the outputs folder, `chosen` the index of the one that is shown.
    """

    form: GenerateForm
    grid: GridForm
    token_count: gr.HTML
    generate: gr.Button
    stop: gr.Button
    upload: gr.UploadButton
    notice: gr.HTML
    stage: gr.HTML
    result: gr.Gallery
    actions: gr.Row
    restore: restore.RestoreButtons
    see: gr.Button
    start: StartForm
    use_start: gr.Button
    visitor: gr.State
    names: gr.State
    chosen: gr.State


def add(context: PageContext) -> GenerateComponents:
    """Lay out the tab. Only tabs may be children of the row of tabs, so states belong inside, too."""
    with gr.Tab("Generate", id="generate", elem_id="tab-generate"), gr.Row(elem_id="workbench"):
        with gr.Column(elem_id="ask", min_width=0):
            prompt = _add_prompt(context)
            token_count = gr.HTML(elem_id="meter")
            generate, stop, upload = _add_buttons()
            notice = gr.HTML(elem_id="notice")
        with gr.Column(elem_id="view", min_width=0):
            stage = gr.HTML(generate_html.WELCOME, elem_id="stage")
            result = _add_result()
            with gr.Row(elem_id="actions", visible=False) as actions:
                restore_buttons = restore.add_buttons()
                see = small_button("See how", elem_id="see-made")
                use_start = small_button("Start from it", elem_id="use-start")
        with gr.Column(elem_id="more", min_width=0):
            with gr.Accordion("Settings", open=False, elem_id="settings"):
                form = add_form(context, prompt)
            with gr.Accordion("Start image and mask", open=False, elem_id="start"):
                start = add_start_form()
            with gr.Accordion("X/Y/Z grid", open=False, elem_id="grid"):
                grid = add_grid()
        return GenerateComponents(
            form=form,
            grid=grid,
            token_count=token_count,
            generate=generate,
            stop=stop,
            upload=upload,
            notice=notice,
            stage=stage,
            result=result,
            actions=actions,
            restore=restore_buttons,
            see=see,
            start=start,
            use_start=use_start,
            visitor=gr.State(None),
            names=gr.State([]),
            chosen=gr.State(0),
        )


def _add_prompt(context: PageContext) -> gr.Textbox:
    return gr.Textbox(
        "",
        label="Prompt",
        placeholder="What should the image show? Leave empty for an example.",
        lines=3,
        max_lines=12,
        max_length=context.settings.max_prompt,
        autofocus=True,
        elem_id="prompt",
    )


def _add_buttons() -> tuple[gr.Button, gr.Button, gr.UploadButton]:
    big: dict[str, Any] = {"min_width": 0}
    with gr.Row(elem_id="buttons"):
        generate = gr.Button("Generate", variant="primary", elem_id="go", **big)
        stop = gr.Button("Stop", variant="stop", elem_id="stop", visible=False, **big)
        upload = gr.UploadButton("From image …", file_types=IMAGE_TYPES, elem_id="drop", size="md", **big)
    return generate, stop, upload


def _add_result() -> gr.Gallery:
    return gr.Gallery(
        label="Result",
        show_label=False,
        preview=True,
        object_fit="contain",
        visible=False,
        buttons=["download", "fullscreen"],
        elem_id="result",
        interactive=False,
        height="auto",
    )
