"""HTML of the Gallery tab: the grid of thumbnails, and the details of the open image."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from html import escape
from pathlib import Path
from typing import Any

from .... import images, metadata
from ....schedule import SAMPLERS
from ..html import render_table, thumbnail_url

# A click on a thumbnail, or its key, is the event `pick` with the image's path.
SCRIPT = """
element.addEventListener('click', (event) => {
  const thumb = event.target.closest('.thumb');
  if (thumb) trigger('pick', {name: thumb.dataset.name});
});
"""
_PROMPTS = ("Prompt", "Negative prompt")


def render_grid(thumbnails: str, empty: str) -> str:
    """The grid of thumbnails, or the message for an empty one."""
    if not thumbnails:
        return f'<p class="empty">{escape(empty)}</p>'
    return f'<div class="shelf" role="group" aria-label="Images">{thumbnails}</div>'


def render_thumbnails(
    outputs: Path, rows: Sequence[tuple[str, float, str]], *, stars: Collection[str], opened: str
) -> str:
    """Thumbnails of (path, time, prompt): each is a button with the prompt as its name. The open image is marked."""
    return "".join(
        _render_thumbnail(name, thumbnail_url(outputs / name, changed), prompt, name in stars, name == opened)
        for name, changed, prompt in rows
    )


def _render_thumbnail(name: str, url: str, prompt: str, is_starred: bool, is_open: bool) -> str:
    label = escape((prompt if len(prompt) < 300 else f"{prompt[:300]}…") or Path(name).stem)
    star = '<span class="star" aria-label="starred">★</span>' if is_starred else ""
    current = ' aria-current="true"' if is_open else ""
    if url:
        image = f'<img src="{escape(url)}" alt="{label}" loading="lazy">'
    else:
        image = f'<span class="broken">{escape(Path(name).name)}</span>'
    return (
        f'<button type="button" class="thumb" data-name="{escape(name)}" title="{label}"{current}>'
        f"{image}{star}</button>"
    )


def render_details(path: Path, name: str) -> str:
    """The prompt, and a table of everything the file says. Raises `FileRefused` if it is not an image."""
    found = metadata.read(path)
    rows = _record_rows(found.record) if found.record else _parameter_rows(found)
    with images.open_image(path) as image:
        rows["Size"] = f"{image.width} × {image.height}"
    more = _origin_rows(found.record) if found.record else {}
    more["File"] = name
    more["Saved"] = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
    more["Label"] = "AI-generated (IPTC)" if found.label else "none"
    prompt, negative = _prompts(found)
    prompts = f'<p class="prompt">{escape(prompt)}</p>' if prompt else ""
    if negative:
        prompts += f'<p class="prompt negative"><span>Negative:</span> {escape(negative)}</p>'
    return f'{prompts}{render_table(rows)}<details class="rest"><summary>More</summary>{render_table(more)}</details>'


def prompt_of(path: Path) -> str:
    """The prompt of an image as its text alternative, or the name of the file."""
    return _prompts(metadata.read(path))[0] or path.stem


def _prompts(found: metadata.ImageMetadata) -> tuple[str, str]:
    if found.record:
        return found.record.settings.prompt, found.record.settings.negative_prompt
    return found.parameters.get("Prompt", ""), found.parameters.get("Negative prompt", "")


def _record_rows(record: metadata.Record) -> dict[str, Any]:
    settings = record.settings
    sampler = SAMPLERS[settings.sampler] if settings.sampler else None
    return {
        "Sampler": f"{sampler.label} {sampler.schedule_type}".strip() if sampler else "",
        "Steps": settings.steps,
        "Guidance": f"{settings.guidance_scale:g}" if settings.guidance_scale is not None else "",
        "Guidance rescale": f"{settings.guidance_rescale:g}" if settings.guidance_rescale else "",
        "Seed": settings.seed,
        "Model": f"{settings.model} {record.revision or record.model_hash[:10]}".strip(),
        "Learned tokens": ", ".join(f"{name} ({sha[:8]})" for name, sha in record.embeddings.items()),
        "LoRA": ", ".join(f"{name} ({sha[:8]})" for name, sha in record.loras.items()),
    } | {f"Grid: {name}": ", ".join(labels) for name, labels in record.axes.items()}


def _origin_rows(record: metadata.Record) -> dict[str, Any]:
    return {
        "Device": f"{record.device}, {record.dtype}".strip(", "),
        "Versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
    }


def _parameter_rows(found: metadata.ImageMetadata) -> dict[str, Any]:
    rows = {key[:100]: value[:1000] for key, value in list(found.parameters.items())[:60] if key not in _PROMPTS}
    return rows | {key[:100]: f"unknown ({reason[:300]})" for key, reason in found.unknown.items()}
