"""InvokeAI: the JSON of versions 3 to 6 and of version 2, and the command line of version 1."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .json_text import first_of, join_size, parse_object
from .parameters import Reading, make_reading

_FLAG = re.compile(r"(?<!\S)(?:-([A-Za-z])\s?|--(\w+)[= ])(?!-[A-Za-z])(\S+)")
_FLAGS_START = re.compile(r"\s-(?:[sbWHCAS]\s?-?[\w.]+|-\w+[= ])")
_QUOTE_END = re.compile(r'(?<!\\)"(?=\s?-|$)')  # the quote before the flags
_FLAGS = {
    "s": "Steps",
    "steps": "Steps",
    "S": "Seed",
    "seed": "Seed",
    "C": "CFG scale",
    "cfg_scale": "CFG scale",
    "A": "Sampler",
    "sampler": "Sampler",
    "W": "width",
    "width": "width",
    "H": "height",
    "height": "height",
    "f": "Denoising strength",
    "strength": "Denoising strength",
}
_MAX_PROMPT = 100_000  # characters of the command line


def read(texts: Mapping[str, str]) -> Reading | None:
    """Read the newest of InvokeAI's texts that is there; None if another program wrote them."""
    for key, parse in (("invokeai_metadata", _read_metadata), ("sd-metadata", _read_version_2), ("Dream", _read_dream)):
        if key in texts and (found := parse(texts[key])):
            return found
    return None


def _read_metadata(text: str) -> Reading | None:
    values = parse_object(text)
    if not {"positive_prompt", "seed", "steps", "scheduler", "prompt"} & values.keys():
        return None
    model = values.get("model")
    if isinstance(model, dict):
        model = first_of(model, "name", "model_name", "key")
    return make_reading(
        "InvokeAI",
        {
            "Prompt": first_of(values, "positive_prompt", "prompt"),
            "Negative prompt": values.get("negative_prompt"),
            "Steps": values.get("steps"),
            "Sampler": values.get("scheduler"),
            "CFG scale": first_of(values, "cfg_scale", "guidance"),
            "CFG rescale": values.get("cfg_rescale_multiplier") or None,
            "Seed": values.get("seed"),
            "Size": join_size(values.get("width"), values.get("height")),
            "Model": model,
            "Clip skip": values.get("clip_skip") or None,
            "Style prompt": values.get("positive_style_prompt"),
            "Negative style prompt": values.get("negative_style_prompt"),
            "Denoising strength": values.get("strength"),
            "Lora": _loras(values.get("loras")),
        },
    )


def _loras(loras: Any) -> str:
    rows = [row for row in loras if isinstance(row, dict)] if isinstance(loras, list) else []
    models = [first_of(row, "model", "lora") for row in rows]
    return ", ".join(str(first_of(m, "name", "model_name")) for m in models if isinstance(m, dict))


def _read_version_2(text: str) -> Reading | None:
    found = parse_object(text)
    values = found.get("image")
    if not isinstance(values, dict):
        images = found.get("images")
        values = images[0] if isinstance(images, list) and images and isinstance(images[0], dict) else {}
    prompts = values.get("prompt")
    if isinstance(prompts, list):
        prompts = ", ".join(str(first_of(p, "prompt")) for p in prompts if isinstance(p, dict))
    if not isinstance(prompts, str) and "seed" not in values:
        return None
    prompt, negative = _split_negative(prompts) if isinstance(prompts, str) else (prompts, None)
    return make_reading(
        "InvokeAI",
        {
            "Prompt": prompt,
            "Negative prompt": negative,
            "Steps": values.get("steps"),
            "Sampler": values.get("sampler"),
            "CFG scale": values.get("cfg_scale"),
            "Seed": values.get("seed"),
            "Size": join_size(values.get("width"), values.get("height")),
            "Model": first_of(found, "model_weights", "model"),
            "Denoising strength": values.get("strength") if values.get("type") == "img2img" else None,
        },
    )


def _read_dream(text: str) -> Reading | None:
    """Read a command line like `"a cat [blurry]" -s50 -W512 -H512 -C7.5 -Ak_lms -S1234`."""
    text = text.strip()[:_MAX_PROMPT]
    if text.startswith('"') and (end := _QUOTE_END.search(text, 1)):
        prompt, flags = text[1 : end.start()].replace('\\"', '"'), text[end.end() :]
    else:
        start = _FLAGS_START.search(text)
        prompt, flags = (text[: start.start()], text[start.start() :]) if start else (text, "")
    found = {_FLAGS.get(short or long, ""): value for short, long, value in _FLAG.findall(" ".join(flags.split()))}
    if not {"Steps", "Seed", "CFG scale", "Sampler"} & found.keys():
        return None
    size = join_size(found.pop("width", None), found.pop("height", None))
    found.pop("", None)
    prompt, negative = _split_negative(prompt)
    return make_reading("InvokeAI", {"Prompt": prompt, "Negative prompt": negative, "Size": size} | found)


def _split_negative(prompt: str) -> tuple[str, str]:
    """Split a prompt of versions 1 and 2, where words in brackets are negative."""
    negative = re.findall(r"\[([^\[\]]*)\]", prompt)
    return re.sub(r"\s*\[[^\[\]]*\]", "", prompt).strip(" ,"), ", ".join(part.strip() for part in negative)
