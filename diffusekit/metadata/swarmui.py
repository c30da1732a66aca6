"""SwarmUI: JSON with the object `sui_image_params`."""

from __future__ import annotations

from collections.abc import Mapping

from .json_text import first_of, join_size, parse_object
from .parameters import Reading, make_reading


def read(texts: Mapping[str, str]) -> Reading | None:
    """Read SwarmUI's JSON; None if it is another text."""
    found = parse_object(texts.get("parameters", "")).get("sui_image_params")
    if not isinstance(found, dict):
        return None
    values = {str(key).lower().replace(" ", "").replace("_", ""): value for key, value in found.items()}
    loras = values.get("loras")
    return make_reading(
        "SwarmUI",
        {
            "Prompt": values.get("prompt"),
            "Negative prompt": values.get("negativeprompt"),
            "Steps": values.get("steps"),
            "Sampler": first_of(values, "sampler", "comfyuisampler"),
            "Schedule type": first_of(values, "scheduler", "comfyuischeduler"),
            "CFG scale": values.get("cfgscale"),
            "Seed": values.get("seed"),
            "Size": join_size(values.get("width"), values.get("height")),
            "Model": values.get("model"),
            "Lora": ", ".join(map(str, loras)) if isinstance(loras, list) else loras,
            "Denoising strength": values.get("initimagecreativity"),
        },
    )
