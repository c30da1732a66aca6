"""Prompts to images. `stream` yields every step; `generate` runs `stream` to its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from PIL import Image

from .embeddings import LearnedToken, tokens_in_prompts
from .errors import ImagesFlagged, UsageError
from .generated_image import GeneratedImage
from .generation import Generation
from .mask import Mask
from .models import Model
from .options import GenerateOptions, LoadOptions
from .settings import GenerateSettings, validate
from .start_image import StartImage
from .workspace import Workspace

__all__ = ["GeneratedImage", "Generation", "generate", "stream"]


def stream(
    prompt: str | Sequence[str],
    *,
    model: str | Model = "mini",
    tokens: Sequence[LearnedToken | str | Path] = (),
    image: Path | str | Image.Image | GeneratedImage | None = None,
    mask: Path | str | Image.Image | None = None,
    **settings: Unpack[GenerateOptions],
) -> Generation:
    """Start images of one or several prompts; iterate the result for their `Step`s.

    `model` is a name, or a model of `load_model`, which has its device, precision and few-step LoRA already.
    `tokens` are learned tokens, or their names or paths; the prompts may name others of the folder `embeddings`.
    With an `image`, the result starts from it, and `strength` says how much of it changes. Without a size it keeps
    that of the image, rounded to what the model takes. With a `mask`, only its white area changes, and where it is
    black every pixel is that of the image.
    Each prompt gets `images` images, with seeds from `seed` upwards. Raises `UsageError` for settings that
    cannot be used, `FileRefused` for a token that does not fit or an image that cannot be read, and `ModelError`.

    >>> for step in stream("A beautiful galaxy", steps=4, seed=7):
    ...     print(step.index, step.timestep)
    0 999
    1 749
    2 499
    3 249
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    decided = {"model": model} if isinstance(model, str) else _decided_by(model, settings)
    values: dict[str, Any] = {**settings, **decided}
    for each in prompts:
        validate(GenerateSettings, values | {"prompt": each})
    own = validate(GenerateSettings, values)
    folder = Workspace().embeddings
    learned = tokens_in_prompts([*prompts, own.negative_prompt], [*tokens, *own.embedding], folder)
    start = StartImage.open(image.image if isinstance(image, GeneratedImage) else image) if image is not None else None
    painted = None if mask is None else Mask.open(mask)
    loaded = None if isinstance(model, str) else model
    return Generation(own, prompts, learned, model=loaded, folder=folder, image=start, mask=painted)


def _decided_by(model: Model, settings: GenerateOptions) -> dict[str, Any]:
    """Return the settings that a loaded model decides; raises `UsageError` when one of them is given too."""
    decided: dict[str, Any] = {"model": model.name, "fast": model.fast, "dtype": model.placement.dtype_name}
    decided |= {"vae": model.vae_name or None, "attention": model.attention}
    decided |= {"prediction_type": model.prediction_type if model.prediction_is_given else None}
    for name in ("device", "dtype", *LoadOptions.__annotations__):
        if name in settings:
            raise UsageError(f"`{name}` is decided when a model is loaded", f"give `{name}` to load_model instead")
    return decided


def generate(
    prompt: str | Sequence[str],
    *,
    model: str | Model = "mini",
    tokens: Sequence[LearnedToken | str | Path] = (),
    image: Path | str | Image.Image | GeneratedImage | None = None,
    mask: Path | str | Image.Image | None = None,
    **settings: Unpack[GenerateOptions],
) -> list[GeneratedImage]:
    """Generate images: `generate("A beautiful galaxy", seed=7)[0].save("galaxy.png")`.

    Takes what `stream` takes. Returns the images in the order of the prompts, without those that the model's safety
    checker flagged. Raises `ImagesFlagged` when it flagged all of them.
    """
    generation = stream(prompt, model=model, tokens=tokens, image=image, mask=mask, **settings)
    for _ in generation:
        pass
    if generation.flagged and not generation.images:
        raise ImagesFlagged(len(generation.flagged), len(generation.flagged))
    return generation.images
