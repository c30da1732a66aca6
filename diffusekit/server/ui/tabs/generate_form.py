"""The form of the Generate tab, as values: to the settings of a job, and back from a picture's.

`FIELDS` are names of `GenerateSettings`, in the order in which handlers get them. Knows no components.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from ....errors import UsageError
from ....schedule import SAMPLERS
from ....settings import GenerateSettings, validate

FIELDS: tuple[str, ...] = (
    "prompt",
    "negative_prompt",
    "sampler",
    "steps",
    "guidance_scale",
    "width",
    "height",
    "images",
    "seed",
    "embedding",
    "model",
    "fast",
)
EXAMPLES = (
    "A beautiful galaxy",
    "a red tree on a hill at night",
    "a blue planet in space",
    "pixel art of a yellow star in the sky",
    "an oil painting of a white house by the sea",
)
LABELS = {
    "prompt": "Prompt",
    "negative_prompt": "Negative prompt",
    "sampler": "Sampler",
    "steps": "Steps",
    "guidance_scale": "Guidance",
    "width": "Width",
    "height": "Height",
    "images": "Pictures",
    "seed": "Seed",
    "embedding": "Learned tokens",
    "model": "Model",
    "fast": "Fast",
}


def sampler_choices() -> list[tuple[str, str]]:
    """(label, name) of the samplers, as A1111 calls them."""
    return [(f"{s.label} {s.schedule_type}".strip(), name) for name, s in SAMPLERS.items()]


def settings_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Checked settings for a job from what stands in the form.

    An empty field, and a seed of -1, means that chance or the model decides. Raises `UsageError` whose
    message begins with the field's label.
    """
    given = {name: _plain(values.get(name)) for name in FIELDS}
    if given["seed"] == "-1":
        given["seed"] = None
    given = {name: value for name, value in given.items() if value is not None}
    try:
        settings = validate(GenerateSettings, given)
    except UsageError as error:
        raise with_label(error) from None
    return settings.model_dump(mode="json", include=set(given))


def with_label(error: UsageError) -> UsageError:
    """The same error with the field called as on the page."""
    name, _, rest = error.message.partition(" ")
    return UsageError(f"{LABELS[name]} {rest}", error.hint) if name in LABELS else error


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        value = value.strip()
    return None if value in ("", [], ()) else value


def example_prompt() -> str:
    """A prompt for an empty form."""
    return secrets.choice(EXAMPLES)


def values_of(settings: GenerateSettings, *, models: Sequence[str], seed: bool) -> dict[str, Any]:
    """What to put into the form to make a picture again, or with `seed` off, one like it.

    Of what the settings leave open, and of a model that this server lacks, the form keeps its own.
    """
    found = settings.model_dump(include=set(FIELDS))
    found["seed"] = str(found["seed"]) if seed and settings.seed is not None else ""
    found["embedding"] = list(settings.embedding)
    found["images"] = 1
    if settings.model not in models:
        del found["model"]
    return {name: value for name, value in found.items() if value is not None}
