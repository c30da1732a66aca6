"""Draw Things: JSON with short keys in the comment, in XMP for PNG."""

from __future__ import annotations

from collections.abc import Mapping

from .json_text import first_of, parse_object
from .parameters import Reading, make_reading


def read(texts: Mapping[str, str]) -> Reading | None:
    """Read the JSON of Draw Things; None if it is another text."""
    values = parse_object(texts.get("parameters", ""))
    if "c" not in values or not {"uc", "sampler", "scale", "steps"} & values.keys():
        return None
    return make_reading(
        "Draw Things",
        {
            "Prompt": values.get("c"),
            "Negative prompt": values.get("uc"),
            "Steps": values.get("steps"),
            "Sampler": values.get("sampler"),
            "CFG scale": first_of(values, "scale", "guidance_scale"),
            "Seed": values.get("seed"),
            "Size": values.get("size"),
            "Model": values.get("model"),
            "Denoising strength": values.get("strength") if values.get("strength") != 1 else None,
        },
    )
