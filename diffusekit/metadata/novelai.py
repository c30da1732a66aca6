"""NovelAI: JSON under the key `Comment`, and the prompt under `Description`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .json_text import first_of, join_size, parse_object
from .parameters import Reading, make_reading


def read(texts: Mapping[str, str]) -> Reading | None:
    """Read NovelAI's texts; None if another program wrote them."""
    inner = parse_object(texts.get("UserComment", ""))  # its WebP holds all texts in one object
    texts = {**{k: v for k, v in inner.items() if isinstance(v, str)}, **texts} if "Comment" in inner else texts
    values = parse_object(texts.get("Comment", ""))
    is_named = "novelai" in f"{texts.get('Software', '')} {texts.get('Title', '')}".lower()
    if not values or not (is_named or {"uc", "sampler", "scale"} <= values.keys()):
        return None
    source = texts.get("Source", "")[:200]
    return make_reading(
        "NovelAI",
        {
            "Prompt": first_of(values, "prompt") or _caption(values, "v4_prompt") or texts.get("Description"),
            "Negative prompt": first_of(values, "uc") or _caption(values, "v4_negative_prompt"),
            "Steps": values.get("steps"),
            "Sampler": values.get("sampler"),
            "Schedule type": values.get("noise_schedule"),
            "CFG scale": values.get("scale"),
            "Seed": values.get("seed"),
            "Size": join_size(values.get("width"), values.get("height")),
            "Model": re.sub(r"\s[0-9A-F]{8}$", "", source),
            "Denoising strength": values.get("strength") if values.get("strength") != 1 else None,
        },
    )


def _caption(values: Mapping[str, Any], name: str) -> str | None:
    """The text of a V4 prompt: the scene, then its characters."""
    prompt = values.get(name)
    caption = prompt.get("caption") if isinstance(prompt, dict) else None
    if not isinstance(caption, dict):
        return None
    characters = caption.get("char_captions")
    parts = [caption.get("base_caption")]
    parts += [c.get("char_caption") for c in characters if isinstance(c, dict)] if isinstance(characters, list) else []
    return ", ".join(part for part in parts if isinstance(part, str) and part)
