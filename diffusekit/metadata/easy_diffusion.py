"""Easy Diffusion: one text for each setting in a PNG, or one JSON object in a comment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .json_text import first_of, join_size, parse_object
from .parameters import Reading, make_reading


def read(texts: Mapping[str, str]) -> Reading | None:
    """Read the texts of Easy Diffusion; None if another program wrote them."""
    values: dict[str, Any] = parse_object(texts.get("parameters", "")) or dict(texts)
    values = {key.lower().replace(" ", "_"): value for key, value in values.items()}
    own = {"num_inference_steps", "use_stable_diffusion_model", "stable_diffusion_model", "sampler_name"}
    if "prompt" not in values or not own & values.keys() or not {"seed", "guidance_scale"} & values.keys():
        return None
    return make_reading(
        "Easy Diffusion",
        {
            "Prompt": values.get("prompt"),
            "Negative prompt": values.get("negative_prompt"),
            "Steps": first_of(values, "num_inference_steps", "steps"),
            "Sampler": first_of(values, "sampler_name", "sampler"),
            "Schedule type": values.get("scheduler_name"),
            "CFG scale": values.get("guidance_scale"),
            "Seed": values.get("seed"),
            "Size": join_size(values.get("width"), values.get("height")),
            "Model": first_of(values, "use_stable_diffusion_model", "stable_diffusion_model"),
            "Lora": values.get("use_lora_model"),
        },
    )
