"""The form of the Generate tab: its components by setting, and its values as settings of a job and back."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from .... import lora
from ....embeddings import list_files
from ....embeddings.names import name_of
from ....errors import DiffusekitError, UsageError
from ....model_files import SamplingDefaults
from ....schedule import SAMPLERS, SPACINGS
from ....settings import GenerateSettings, validate
from ....visualise import xyz_grid
from .. import prompt_info
from ..context import PageContext, Updates, small_button
from .generate_html import render_word_list
from .start_form import START_LABELS

LABELS = {
    "prompt": "Prompt",
    "negative_prompt": "Negative prompt",
    "sampler": "Sampler",
    "steps": "Steps",
    "guidance_scale": "Guidance",
    "width": "Width",
    "height": "Height",
    "images": "Images",
    "seed": "Seed",
    "embedding": "Learned tokens",
    "lora": "LoRA",
    "model": "Model",
    "fast": "Fast",
    "prompt_syntax": "Prompt syntax",
    "spacing": "Timestep spacing",
    "guidance_rescale": "Guidance rescale",
}
SYNTAXES = (("Plain", "plain"), ("A1111", "a1111"))  # labels and values of `prompt_syntax`
FIELDS = tuple(LABELS)  # names of `GenerateSettings`, in the order in which handlers get their values
EXAMPLES = (
    "A beautiful galaxy",
    "a red tree on a hill at night",
    "a blue planet in space",
    "pixel art of a yellow star in the sky",
    "an oil painting of a white house by the sea",
)


@dataclass(frozen=True)
class GenerateForm:
    """`fields` are components by the names of their settings, `words` the hidden list for completion."""

    fields: dict[str, Any]
    random_seed: gr.Button
    reuse_seed: gr.Button
    swap_size: gr.Button
    refresh_models: gr.Button
    words: gr.HTML

    @property
    def prompt(self) -> gr.Textbox:
        return self.fields["prompt"]

    @property
    def inputs(self) -> list[Any]:
        """The components in the order of `FIELDS`."""
        return [self.fields[name] for name in FIELDS]

    @property
    def learned(self) -> list[Any]:
        """What changes when learned tokens come or go."""
        return [self.fields["embedding"], self.words]

    def refresh_loras(self, folder: Path) -> Updates:
        """Offer the LoRA files that are in the folder now."""
        names = lora_names(folder)
        return {self.fields["lora"]: gr.update(choices=names, visible=bool(names))}

    def refresh_learned(self, folder: Path) -> Updates:
        """Offer the learned tokens that are in the folder now."""
        names = learned_names(folder)
        choices = gr.update(choices=names, visible=bool(names))
        return dict(zip(self.learned, (choices, render_word_list(names)), strict=True))


@dataclass(frozen=True)
class GridForm:
    """`inputs` are an axis and its values, three times."""

    inputs: list[Any]
    generate: gr.Button


# --- components ------------------------------------------------------------------------------


def add_form(context: PageContext, prompt: gr.Textbox) -> GenerateForm:
    """Lay out everything but the prompt."""
    settings, (size, suited, has_fast) = context.settings, model_defaults(context.settings.model)
    models = list(context.jobs.models.names())
    fields: dict[str, Any] = {"prompt": prompt}
    fields["negative_prompt"] = gr.Textbox(
        "",
        label=LABELS["negative_prompt"],
        placeholder="What the image should not show",
        lines=1,
        max_lines=6,
        max_length=settings.max_prompt,
        elem_id="negative",
    )
    with gr.Row(elem_classes="sizes"):
        fields["model"] = gr.Dropdown(models, value=models[0], label=LABELS["model"], min_width=0, elem_id="model")
        refresh = small_button("Refresh", elem_classes="beside", elem_id="refresh-models")
    fields["sampler"] = sampler_dropdown(suited.sampler)
    with gr.Row(elem_classes="pair"):
        fields["steps"] = _slider("steps", 1, settings.max_steps, suited.steps)
        fields["guidance_scale"] = guidance_slider(suited.guidance_scale)
    with gr.Row(elem_classes="sizes"):
        fields["width"] = gr.Number(size, label=LABELS["width"], precision=0, min_width=0, step=8)
        fields["height"] = gr.Number(size, label=LABELS["height"], precision=0, min_width=0, step=8)
        swap = small_button("Swap", elem_classes="beside")
    with gr.Row(elem_classes="pair"):
        fields["images"] = _slider("images", 1, min(settings.max_images, 16), 1)
        fields["fast"] = gr.Checkbox(
            False, label=LABELS["fast"], info="4 steps, no guidance", visible=has_fast, min_width=0, elem_id="fast"
        )
    with gr.Row(elem_classes="pair"):
        fields["prompt_syntax"] = syntax_dropdown()
        fields["spacing"] = spacing_dropdown()
    fields["guidance_rescale"] = gr.Slider(
        0, 1, 0, step=0.05, label=LABELS["guidance_rescale"], info="Against too bright images.", buttons=[]
    )
    with gr.Row(elem_classes="sizes"):
        fields["seed"] = seed_box("seed")
        random_seed = small_button("Random", elem_classes="beside", elem_id="dice")
        reuse_seed = small_button("Reuse", elem_classes="beside", elem_id="reuse")
    return GenerateForm(fields, random_seed, reuse_seed, swap, refresh, _add_learned(context, fields))


def _add_loras(context: PageContext) -> gr.Dropdown:
    names = lora_names(context.jobs.loras)
    return gr.Dropdown(
        names,
        multiselect=True,
        allow_custom_value=True,
        value=[],
        label=LABELS["lora"],
        visible=bool(names),
        info="Write name:0.8 for a strength other than 1.",
        elem_id="loras",
    )


def _add_learned(context: PageContext, fields: dict[str, Any]) -> gr.HTML:
    fields["lora"] = _add_loras(context)
    names = learned_names(context.jobs.embeddings)
    fields["embedding"] = gr.Dropdown(
        names,
        multiselect=True,
        value=[],
        label=LABELS["embedding"],
        visible=bool(names),
        info="Needed only for a token that several files share, like S*.",
        elem_id="learned",
    )
    return gr.HTML(render_word_list(names), elem_id="words", visible="hidden")


def add_grid() -> GridForm:
    """Lay out the three axes of a grid."""
    choices = [("Nothing", ""), *((label, name) for name, label in xyz_grid.AXES.items())]
    rows = (
        ("X axis (columns)", "steps", "4-20 (+8)", "DPM++ 2M, Euler a"),
        ("Y axis (rows)", "", "", "4-20 (+8)"),
        ("Z axis (sheets)", "", "", "cat, dog, rabbit"),
    )
    inputs: list[Any] = []
    for label, axis, values, example in rows:
        with gr.Row(elem_classes="pair"):
            inputs += [
                gr.Dropdown(choices, value=axis, label=label, min_width=0),
                gr.Textbox(
                    values,
                    label=f"{label}: values",
                    show_label=False,
                    placeholder=f"for example {example}",
                    max_lines=1,
                    min_width=0,
                    max_length=2000,
                ),
            ]
    return GridForm(inputs, gr.Button(f"Generate grid (at most {xyz_grid.MAX_IMAGES} images)", elem_id="draw"))


def _slider(name: str, low: int, high: int, value: int) -> gr.Slider:
    return gr.Slider(low, high, value, step=1, label=LABELS[name], min_width=0, buttons=[])


def guidance_slider(value: float) -> gr.Slider:
    return gr.Slider(0, 20, value, step=0.1, label=LABELS["guidance_scale"], min_width=0, buttons=[])


def sampler_dropdown(value: str) -> gr.Dropdown:
    return gr.Dropdown(sampler_choices(), value=value, label=LABELS["sampler"], min_width=0)


def syntax_dropdown() -> gr.Dropdown:
    info = "A1111: (weights:1.2), [from:to:when], [a|b], BREAK, AND, and any length."
    return gr.Dropdown(list(SYNTAXES), value="plain", label=LABELS["prompt_syntax"], info=info, elem_id="syntax")


def spacing_dropdown() -> gr.Dropdown:
    choices = [("The model's", ""), *((name.capitalize(), name) for name in SPACINGS)]
    return gr.Dropdown(choices, value="", label=LABELS["spacing"], min_width=0, elem_id="spacing")


def seed_box(elem_id: str) -> gr.Textbox:
    return gr.Textbox("", label=LABELS["seed"], placeholder="random", max_lines=1, min_width=0, elem_id=elem_id)


def sampler_choices() -> list[tuple[str, str]]:
    """(label, name) of the samplers, as A1111 calls them."""
    return [(f"{s.label} {s.schedule_type}".strip(), name) for name, s in SAMPLERS.items()]


def model_defaults(model: str) -> tuple[int, SamplingDefaults, bool]:
    """Native size, what suits the model, whether there is a few-step LoRA; Stable Diffusion's without the files."""
    try:
        info = prompt_info.describe_model(model)
        return info.native_size, info.defaults, info.has_fast_lora
    except (DiffusekitError, OSError, ValueError, KeyError):
        return 512, SamplingDefaults(), False


def learned_names(folder: Path) -> list[str]:
    """The names of the learned tokens in a folder."""
    try:
        return [name_of(path.stem) for path in list_files(folder)]
    except (DiffusekitError, OSError):
        return []


def lora_names(folder: Path) -> list[str]:
    """The names of the LoRA files in a folder and below."""
    try:
        return list(lora.list_files(folder))
    except OSError:
        return []


# --- values ----------------------------------------------------------------------------------


def read_form(values: Sequence[Any]) -> dict[str, Any]:
    """Values by setting; without a prompt, an example."""
    given = dict(zip(FIELDS, values, strict=True))
    return given | {"prompt": prompt_or_example(given["prompt"])}


def prompt_or_example(prompt: str | None) -> str:
    return (prompt or "").strip() or secrets.choice(EXAMPLES)


def settings_from_form(values: Mapping[str, Any]) -> dict[str, Any]:
    """Validated settings for a job from the values of the form.

    An empty field leaves the setting to its default; so does a seed of -1. Raises `UsageError` whose message
    begins with the field's label.
    """
    given = {name: _clean(values.get(name)) for name in FIELDS}
    if given["seed"] == "-1":
        given["seed"] = None
    given = {name: value for name, value in given.items() if value is not None}
    try:
        settings = validate(GenerateSettings, given)
    except UsageError as error:
        raise UsageError(_with_labels(error.message), error.hint) from None
    return settings.model_dump(mode="json", include=set(given))


def spell_labels(sentences: Sequence[str]) -> list[str]:
    """Warnings with the labels of the form instead of the names of settings."""
    texts = map(_with_labels, sentences)
    return [f"{sentence[:1].upper()}{sentence[1:]}" for sentence in texts]


def _with_labels(message: str) -> str:
    """A message with the labels of the form instead of the names of settings."""
    return re.sub("`(\\w+)`", lambda match: (LABELS | START_LABELS).get(match[1], match[0]), message)


def _clean(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        value = value.strip()
    return None if value in ("", [], ()) else value


def form_from_settings(settings: GenerateSettings, *, models: Sequence[str], seed: bool) -> dict[str, Any]:
    """Values for the form that generate an image again; without `seed`, a similar one.

    The form keeps its own value where the settings have none, and its own model if this server lacks theirs.
    """
    values = settings.model_dump(include=set(FIELDS))
    values["seed"] = str(values["seed"]) if seed and settings.seed is not None else ""
    values["embedding"], values["lora"] = list(settings.embedding), list(settings.lora)
    values["images"] = 1
    if settings.model not in models:
        del values["model"]
    return {name: value for name, value in values.items() if value is not None}
