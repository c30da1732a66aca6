"""A1111's infotext: the prompt, the negative prompt and one line of settings, as text."""

from __future__ import annotations

import json
import re
from typing import Any

from ..schedule import SAMPLERS
from ..settings import GenerateSettings, validate
from .record import Record

_PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_MAX_LINE = 50_000  # characters of the settings line that are searched for pairs
_NEGATIVE = "Negative prompt:"


def format_infotext(record: Record) -> str:
    """Write the text that A1111 and Forge read.

    The line of the negative prompt is always there, because ComfyUI looks for it. `Emphasis: None` tells A1111
    that brackets in the prompts were read as plain text.
    """
    s = record.settings
    sampler = SAMPLERS[s.sampler]
    pairs: dict[str, Any] = {
        "Steps": s.steps,
        "Sampler": sampler.label,
        "Schedule type": sampler.schedule_type,
        "CFG scale": s.guidance_scale,
        "Seed": s.seed,
        "Size": f"{s.width}x{s.height}",
        "Model": s.model,
        "RNG": "CPU",
        "Emphasis": "None" if set("([") & set(s.prompt + s.negative_prompt) else "",
        "TI hashes": ", ".join(f"{name}: {sha[:12]}" for name, sha in record.embeddings.items()),
        "Version": f"diffusekit {record.versions.get('diffusekit', '')}".strip(),
    }
    for letter, (name, labels) in zip("XYZ", record.axes.items(), strict=False):
        pairs |= {"Script": "X/Y/Z plot", f"{letter} Type": name}
        pairs[f"{letter} Values"] = ", ".join(labels)
    line = ", ".join(f"{key}: {_quote(value)}" for key, value in pairs.items() if value not in ("", None))
    return f"{s.prompt}\n{_NEGATIVE} {s.negative_prompt}\n{line}"


def parse_infotext(text: str) -> dict[str, str]:
    """Split an infotext into A1111's keys and values, plus `Prompt` and `Negative prompt`."""
    lines = text.strip().split("\n")
    pairs = _PAIR.findall(lines[-1]) if len(lines[-1]) < _MAX_LINE else []
    if len(pairs) < 3:  # A1111 takes the last line for settings from three pairs on
        pairs = []
    else:
        lines.pop()
    prompt, negative, target = [], [], None
    for line in lines:
        if target is None and line.startswith(_NEGATIVE):
            target, line = negative, line[len(_NEGATIVE) :].removeprefix(" ")
        (prompt if target is None else target).append(line)
    prompts = {"Prompt": "\n".join(prompt).strip(), "Negative prompt": "\n".join(negative).strip()}
    return prompts | {key.strip(): _unquote(value) for key, value in pairs}


def settings_from_infotext(pairs: dict[str, str]) -> GenerateSettings:
    """Translate the pairs of `parse_infotext` into settings, as far as they mean the same here.

    The model stays at its default, because another program's name for it says nothing here. Raises
    `UsageError` for a value that cannot be used.
    """
    names = {(s.label, s.schedule_type): name for name, s in SAMPLERS.items()}
    label, schedule = pairs.get("Sampler", ""), pairs.get("Schedule type", "")
    if label.endswith(" Karras"):
        label, schedule = label.removesuffix(" Karras"), "Karras"
    width, _, height = pairs.get("Size", "").partition("x")
    values = {
        "prompt": pairs["Prompt"],
        "negative_prompt": pairs["Negative prompt"],
        "sampler": names.get((label, schedule), names.get((label, ""))),
        "steps": pairs.get("Steps"),
        "guidance_scale": pairs.get("CFG scale"),
        "seed": pairs.get("Seed"),
        "width": width,
        "height": height,
    }
    return validate(GenerateSettings, {name: value for name, value in values.items() if value})


def _quote(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(c in text for c in ",\n:") else text


def _unquote(value: str) -> str:
    if value.startswith('"') and value.endswith('"') and len(value) > 1:
        try:
            return str(json.loads(value))
        except ValueError:
            return value
    return value.strip()
