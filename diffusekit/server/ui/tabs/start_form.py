"""The start image of the Generate tab: an editor in which a mask is painted, and the settings of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image, ImageChops

from ....errors import FileRefused, UsageError
from ....mask import Mask
from ....settings import ServeSettings
from ....start_image import StartImage
from ...storage import sources

START_LABELS = {
    "strength": "Strength",
    "mask_blur": "Soft edges",
    "mask_padding": "Padding",
    "invert_mask": "Keep what is painted",
    "mask_content": "Masked content",
}
_AUTOMATIC = 0.0  # of the slider of the strength: the default


@dataclass(frozen=True)
class StartForm:
    """`editor` holds the image and the strokes on it. `inputs` are all components, as `read_start` takes them."""

    editor: gr.ImageEditor
    inputs: list[Any]


def add_start_form() -> StartForm:
    """Lay out the editor and the settings."""
    editor = gr.ImageEditor(
        type="pil",
        format="png",
        label="Start image",
        sources=["upload", "clipboard"],
        transforms=(),
        layers=False,
        brush=gr.Brush(default_size=24, colors=["#ff2f92"], default_color="#ff2f92", color_mode="fixed"),
        eraser=gr.Eraser(default_size=24),
        canvas_size=(512, 512),
        height=420,
        placeholder="Drop an image here. Paint over what should change, or leave it all.",
        buttons=[],
        elem_id="start-editor",
    )
    with gr.Row(elem_classes="pair"):
        strength = gr.Slider(
            0, 1, _AUTOMATIC, step=0.05, label=START_LABELS["strength"], info="0: automatic", min_width=0, buttons=[]
        )
        blur = gr.Slider(0, 64, 0, step=1, label=START_LABELS["mask_blur"], info="pixels", min_width=0, buttons=[])
    with gr.Row(elem_classes="pair"):
        only = gr.Checkbox(False, label="Only the masked area", info="at full size", min_width=0, elem_id="only-masked")
        invert = gr.Checkbox(False, label=START_LABELS["invert_mask"], info="and change the rest", min_width=0)
    with gr.Row(elem_classes="pair"):
        padding = gr.Slider(
            0, 256, 32, step=4, label=START_LABELS["mask_padding"], info="pixels", min_width=0, buttons=[]
        )
        contents = [("Original", "original"), ("Fill", "fill"), ("Noise", "noise"), ("Nothing", "nothing")]
        content = gr.Dropdown(
            contents, value="original", label=START_LABELS["mask_content"], info="at a strength below 1", min_width=0
        )
    return StartForm(editor, [editor, strength, blur, only, padding, invert, content])


def read_start(values: Sequence[Any], server: ServeSettings) -> dict[str, Any]:
    """Store the image and the mask of the form; return their ids and the settings that count.

    Without an image there are none. Raises `UsageError` for strokes without an image, `FileRefused` for a large one.
    """
    edited, strength, blur, only, padding, invert, content = values
    background, mask = _read_editor(edited)
    if background is None:
        if mask is not None:
            raise UsageError("there are strokes and no start image", "drop an image on the editor first")
        return {}
    limit = sources.MAX_FACTOR * server.max_pixels
    if background.width * background.height > limit:
        raise FileRefused("the start image is too large", f"the limit is {limit:,} pixels")
    settings: dict[str, Any] = {"start_image": sources.store(server, StartImage.open(background))}
    if strength != _AUTOMATIC:
        settings["strength"] = float(strength)
    if mask is None:
        return settings
    settings |= {"mask": sources.store(server, mask), "invert_mask": bool(invert), "mask_blur": float(blur)}
    if only:
        settings["mask_padding"] = int(padding)
    return settings | ({"mask_content": content} if strength not in (_AUTOMATIC, 1) else {})


def start_from(path: Path) -> dict[str, Any]:
    """The value of the editor that shows an image without strokes."""
    return {"background": str(path), "layers": [], "composite": None}


def _read_editor(edited: Mapping[str, Any] | None) -> tuple[Image.Image | None, Mask | None]:
    """The image of the editor, and what is painted over it."""
    if not edited:
        return None, None
    strokes: Image.Image | None = None
    for layer in edited.get("layers") or ():
        alpha = layer.convert("RGBA").getchannel("A").point(lambda value: 255 if value >= 128 else 0)
        strokes = alpha if strokes is None else ImageChops.lighter(strokes, alpha)
    is_painted = strokes is not None and strokes.getbbox() is not None
    return edited.get("background"), Mask.of(strokes) if strokes is not None and is_painted else None
