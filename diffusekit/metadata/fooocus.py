"""Fooocus: JSON in its own scheme. Its other scheme is A1111's infotext."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .json_text import first_of, join_size, parse_object
from .parameters import Reading, make_reading

# Steps of each performance, in versions that do not write the number.
_PERFORMANCE = {"speed": 30, "quality": 60, "extreme speed": 8, "lightning": 4, "hyper-sd": 4}
_SIZE = re.compile(r"\(?\s*(\d{1,6})\s*[,x×*]\s*(\d{1,6})\s*\)?")


def read(texts: Mapping[str, str]) -> Reading | None:
    """Read the JSON of Fooocus and its descendants; None if it is another text."""
    raw = parse_object(texts.get("parameters", ""))
    values = {key.lower().replace(" ", "_"): value for key, value in raw.items()}
    named = " ".join(str(first_of(values, key)) for key in ("version", "software", "metadata_scheme")).lower()
    has_fields = {"prompt", "performance"} <= values.keys() or {"prompt", "base_model"} <= values.keys()
    if not has_fields and not ("fooocus" in named and "prompt" in values):
        return None
    performance = str(values.get("performance", "")).lower()
    return make_reading(
        "Fooocus",
        {
            "Prompt": values.get("prompt"),
            "Negative prompt": first_of(values, "negative_prompt", "negative"),
            "Steps": first_of(values, "steps", "step") or _PERFORMANCE.get(performance),
            "Sampler": first_of(values, "sampler", "sampler_name"),
            "Schedule type": values.get("scheduler"),
            "CFG scale": first_of(values, "guidance_scale", "cfg", "cfg_scale"),
            "Seed": values.get("seed"),
            "Size": _size(values),
            "Model": first_of(values, "base_model", "base_model_name"),
            "Clip skip": values["clip_skip"] if values.get("clip_skip") not in (1, None) else None,
            "Sharpness": values.get("sharpness"),
            "Styles": _names(values.get("styles")),
        },
    )


def _size(values: Mapping[str, Any]) -> str | None:
    resolution = values.get("resolution")
    if isinstance(resolution, list) and len(resolution) == 2:
        return join_size(*resolution)
    if isinstance(resolution, str) and (match := _SIZE.match(resolution)):
        return f"{match[1]}x{match[2]}"
    return join_size(values.get("width"), values.get("height"))


def _names(styles: Any) -> str:
    return str(styles).strip("[]").replace("'", "") if isinstance(styles, str | list) else ""
