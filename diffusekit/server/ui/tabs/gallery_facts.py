"""What the Gallery tells of one picture, as escaped HTML. Knows no components."""

from __future__ import annotations

import time
from html import escape
from pathlib import Path
from typing import Any

from .... import images, metadata
from ....schedule import SAMPLERS
from .. import html

_TOLD = ("Prompt", "Negative prompt")


def render_details(path: Path, name: str) -> str:
    """The prompt, and a table of everything the file says. Raises `FileRefused` if it is no picture."""
    found = metadata.read(path)
    rows = _ours(found.record) if found.record else _theirs(found.parameters)
    with images.open_image(path) as picture:
        rows["Size"] = f"{picture.width} × {picture.height}"
    rest = _circumstances(found.record) if found.record else {}
    rest["File"] = name
    rest["Written"] = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
    rest["Label"] = "made by a model (IPTC)" if found.label else "none"
    prompt, negative = _prompts(found)
    said = f'<p class="prompt">{escape(prompt)}</p>' if prompt else ""
    if negative:
        said += f'<p class="prompt negative"><span>not:</span> {escape(negative)}</p>'
    more = f'<details class="rest"><summary>More</summary>{html.render_table(rest)}</details>'
    return said + html.render_table(rows) + more


def prompt_of(path: Path) -> str:
    """The prompt, for those who do not see the picture; what else the file is called without one."""
    return _prompts(metadata.read(path))[0] or path.stem


def _prompts(found: metadata.ImageMetadata) -> tuple[str, str]:
    if found.record:
        return found.record.settings.prompt, found.record.settings.negative_prompt
    return found.parameters.get("Prompt", ""), found.parameters.get("Negative prompt", "")


def _ours(record: metadata.Record) -> dict[str, Any]:
    made = record.settings
    sampler = SAMPLERS[made.sampler]
    tokens = ", ".join(f"{name} ({sha[:8]})" for name, sha in record.embeddings.items())
    return {
        "Sampler": f"{sampler.label} {sampler.schedule_type}".strip(),
        "Steps": made.steps,
        "Guidance": f"{made.guidance_scale:g}" if made.guidance_scale is not None else "",
        "Seed": made.seed,
        "Model": f"{made.model} {record.revision}".strip(),
        "Learned tokens": tokens,
    } | {f"Grid: {name}": ", ".join(labels) for name, labels in record.axes.items()}


def _circumstances(record: metadata.Record) -> dict[str, Any]:
    return {
        "Made on": f"{record.device}, {record.dtype}".strip(", "),
        "With": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
    }


def _theirs(parameters: dict[str, str]) -> dict[str, Any]:
    return {key[:100]: value[:1000] for key, value in list(parameters.items())[:60] if key not in _TOLD}
