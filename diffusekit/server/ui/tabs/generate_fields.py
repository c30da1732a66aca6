"""The components of the Generate form: one for each setting, and the three axes of a grid.

Knows how they look, not what they do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ....errors import DiffusekitError
from ....settings import GenerateSettings
from ....visualise import xyz_grid
from .. import html, prompt_info
from ..context import House
from . import generate_form, generate_restore


@dataclass(frozen=True)
class Fields:
    """`by_name` are the components of the settings; the rest are buttons and a hidden list of words."""

    by_name: dict[str, Any]
    dice: gr.Button
    reuse: gr.Button
    swap: gr.Button
    words: gr.HTML

    @property
    def inputs(self) -> list[Any]:
        """In the order of `form.FIELDS`."""
        return [self.by_name[name] for name in generate_form.FIELDS]


@dataclass(frozen=True)
class GridFields:
    """`inputs`: axis and values, three times."""

    inputs: list[Any]
    draw: gr.Button


def fields(house: House, prompt: gr.Textbox) -> Fields:
    """Everything but the prompt, for an open accordion."""
    side, guidance, fast = _suited(house.settings.model)
    known = list(house.jobs.models.names())
    default = GenerateSettings.model_fields
    names: dict[str, Any] = {"prompt": prompt}
    names["negative_prompt"] = gr.Textbox(
        "",
        label="Negative prompt",
        placeholder="What to steer away from",
        lines=1,
        max_lines=6,
        max_length=house.settings.max_prompt,
        elem_id="negative",
    )
    with gr.Row(elem_classes="pair"):
        names["sampler"] = gr.Dropdown(
            generate_form.sampler_choices(), value=default["sampler"].default, label="Sampler", min_width=0
        )
        names["model"] = gr.Dropdown(known, value=known[0], label="Model", visible=len(known) > 1, min_width=0)
    with gr.Row(elem_classes="pair"):
        names["steps"] = gr.Slider(
            1,
            house.settings.max_steps,
            default["steps"].default,
            step=1,
            label="Steps",
            min_width=0,
            buttons=[],
        )
        names["guidance_scale"] = gr.Slider(0, 20, guidance, step=0.1, label="Guidance", min_width=0, buttons=[])
    with gr.Row(elem_classes="sizes"):
        names["width"] = gr.Number(side, label="Width", precision=0, min_width=0, step=8)
        names["height"] = gr.Number(side, label="Height", precision=0, min_width=0, step=8)
        swap = gr.Button("Swap", size="sm", min_width=0, elem_classes="beside")
    names |= _amount(house, fast)
    with gr.Row(elem_classes="sizes"):
        names["seed"] = gr.Textbox("", label="Seed", placeholder="by chance", max_lines=1, min_width=0, elem_id="seed")
        dice = gr.Button("Dice", size="sm", min_width=0, elem_classes="beside", elem_id="dice")
        reuse = gr.Button("Reuse", size="sm", min_width=0, elem_classes="beside", elem_id="reuse")
    learned = generate_restore.learned_names(house.jobs.embeddings)
    names["embedding"] = gr.Dropdown(
        learned,
        multiselect=True,
        value=[],
        label="Learned tokens",
        visible=bool(learned),
        info="Needed only for a word that several tokens answer to, like S*.",
        elem_id="learned",
    )
    words = gr.HTML(html.render_word_list(learned), elem_id="words", visible="hidden")
    return Fields(names, dice, reuse, swap, words)


def _amount(house: House, fast: bool) -> dict[str, Any]:
    """How many pictures, and whether by few steps."""
    with gr.Row(elem_classes="pair"):
        return {
            "images": gr.Slider(
                1, min(house.settings.max_images, 16), 1, step=1, label="Pictures", min_width=0, buttons=[]
            ),
            "fast": gr.Checkbox(
                False, label="Fast", info="4 steps, no guidance", visible=fast, min_width=0, elem_id="fast"
            ),
        }


def grid_fields() -> GridFields:
    """Three axes, each folded out only as far as it is used."""
    choices = [("nothing", ""), *((label, name) for name, label in xyz_grid.AXES.items())]
    hints = ("DPM++ 2M, Euler a", "4-20 (+8)", "cat, dog, rabbit")
    inputs: list[Any] = []
    names = ("From left to right", "From top to bottom", "Sheet by sheet")
    for name, start, hint in zip(names, ("steps", "", ""), hints, strict=True):
        with gr.Row(elem_classes="pair"):
            inputs += [
                gr.Dropdown(choices, value=start, label=name, min_width=0),
                gr.Textbox(
                    "4-20 (+8)" if start else "",
                    label=f"{name}: values",
                    show_label=False,
                    placeholder=f"like {hint}",
                    max_lines=1,
                    min_width=0,
                    max_length=2000,
                ),
            ]
    draw = gr.Button(f"Draw the grid (at most {xyz_grid.MAX_IMAGES} pictures)", elem_id="draw")
    return GridFields(inputs, draw)


def _suited(model: str) -> tuple[int, float, bool]:
    """(side, guidance, whether it can be fast) of a model; Stable Diffusion's when it cannot be had now."""
    try:
        info = prompt_info.describe_model(model)
        return info.native_size, info.guidance_scale, info.has_fast_lora
    except (DiffusekitError, OSError, ValueError, KeyError):
        return 512, 7.5, False
