"""Types of the keyword arguments that public functions take, for editors and type checkers.

A test compares them with the settings models, which check the values.
"""

from typing import Literal, TypedDict


class LoadOptions(TypedDict, total=False):
    """How a model is loaded, besides its name, device and precision: `models.LoadRequest` has the same fields."""

    fast: bool
    vae: str | None
    prediction_type: Literal["epsilon", "v_prediction", "sample"] | None
    attention: Literal["sdpa", "xformers", "math"]
    memory: str | None


class GenerateOptions(TypedDict, total=False):
    """The fields of `GenerateSettings` besides `prompt` and `model`."""

    vae: str | None
    prediction_type: Literal["epsilon", "v_prediction", "sample"] | None
    negative_prompt: str
    prompt_syntax: Literal["plain", "a1111"]
    strength: float | None
    invert_mask: bool
    mask_blur: float
    mask_padding: int | None
    mask_content: Literal["original", "fill", "noise", "nothing"]
    steps: int | None
    guidance_scale: float | None
    guidance_rescale: float
    sampler: str | None
    spacing: Literal["leading", "linspace", "trailing"] | None
    fast: bool
    no_safety_checker: bool
    seed: int | None
    images: int
    width: int | None
    height: int | None
    batch: int | None
    embedding: tuple[str, ...]
    lora: tuple[str, ...]
    device: str
    dtype: Literal["auto", "float32", "float16", "bfloat16"]
    attention: Literal["sdpa", "xformers", "math"]
    memory: str | None


class InvertOptions(TypedDict, total=False):
    """The fields of `InvertSettings` besides `pictures`."""

    vae: str | None
    prediction_type: Literal["epsilon", "v_prediction", "sample"] | None
    token: str
    name: str | None
    init: str | None
    start: Literal["word", "output"]
    property: Literal["object", "style"]
    captions: Literal["auto", "templates", "files", "both"]
    vectors: int
    steps: int
    learning_rate: float | None
    batch: int
    norm_bound: float
    pull: float
    crops: int
    flip: bool
    alpha_mask: bool
    model: str
    preview: str | None
    preview_every: int | None
    preview_images: int | None
    preview_size: int | None
    patience: int
    clip: str
    checkpoint_every: int
    seed: int
    deterministic: bool
    trackers: tuple[str, ...]
    device: str
    dtype: Literal["auto", "float32", "bfloat16"]
    attention: Literal["sdpa", "xformers", "math"]
