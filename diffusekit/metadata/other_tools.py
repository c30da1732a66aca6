"""Metadata of ComfyUI, InvokeAI, NovelAI and Fooocus, translated to A1111's keys.

`sd_parsers` parses the texts. This module limits their size before and translates the result after. The
input is untrusted: unusable values are dropped, and no error is raised.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import UsageError
from ..schedule import SAMPLERS
from ..settings import GenerateSettings, validate

_MAX_TEXT = 1_000_000  # characters; longer texts are not parsed
_MAX_NODES, _MAX_LINKS, _MAX_VISITS = 500, 2000, 10_000  # of ComfyUI's graph; a larger one is slow to search
_INPUTS = {
    "text",
    "positive",
    "negative",
    "model",
    "ckpt_name",
    "sampler_name",
    "scheduler",
    "steps",
    "cfg",
    "seed",
    "noise_seed",
    "width",
    "height",
}
# A1111's label of a sampler by the names of other programs.
_LABELS = {alias: sampler.label for sampler in SAMPLERS.values() for alias in sampler.aliases}


def read_parameters(texts: Mapping[str, str]) -> dict[str, str]:
    """Translate the texts of an image to A1111's keys and `Program`. Empty if no such program wrote them."""
    from sd_parsers import parsers

    fooocus = texts.get("parameters", "").lstrip().startswith("{")
    programs = (
        ("ComfyUI", "prompt" in texts, parsers.ComfyUIParser, _reduce_graph),
        ("InvokeAI", {"invokeai_metadata", "sd-metadata", "Dream"} & set(texts), parsers.InvokeAIParser, dict),
        ("NovelAI", texts.get("Software") == "NovelAI", parsers.NovelAIParser, dict),
        ("Fooocus", fooocus, parsers.FooocusParser, dict),
    )
    texts = {key: text for key, text in texts.items() if len(text) <= _MAX_TEXT}
    # text that is not JSON is searched with patterns that are slow on long runs of spaces
    texts |= {key: " ".join(texts[key].split()) for key in ("Dream", "Source") if key in texts}
    for program, applies, parser, prepare in programs:
        if not applies:
            continue
        try:
            parameters = _translate(parser().parse(prepare(texts)))
        except Exception:  # the parsers trust their input, so hostile text can raise anything
            continue
        if parameters:
            return {"Prompt": "", "Negative prompt": ""} | parameters | {"Program": program}
    return {}


def _reduce_graph(texts: Mapping[str, str]) -> dict[str, Any]:
    """Reduce ComfyUI's graph to the inputs that matter, and list its links.

    The editor's own `workflow` has such a list, but not every file has a workflow. Raises `ValueError` for
    a graph that is too large to search.
    """
    graph: dict[str, dict[str, Any]] = {}
    links: list[tuple[int, str, int, str, int, str]] = []
    samplers = 0
    for number, node in json.loads(texts["prompt"]).items():
        inputs, node_type = node["inputs"], str(node.get("class_type"))
        for name, value in inputs.items():
            if isinstance(value, list) and len(value) == 2:
                link_type = "CLIP" if name == "clip" else "*"  # CLIP links are not searched for prompts
                links.append((len(links), str(value[0]), 0, number, 0, link_type))
        is_sampler = "sampler_name" in inputs
        samplers += is_sampler
        known = {
            name: value
            for name, value in inputs.items()
            if name in _INPUTS and (is_sampler or not isinstance(value, list))
        }
        graph[number] = {"class_type": node_type if node_type.startswith("Empty") else "", "inputs": known}
    if len(graph) > _MAX_NODES or len(links) > _MAX_LINKS or samplers * len(links) > _MAX_VISITS:
        raise ValueError("the graph is too large")
    return {"prompt": graph, "workflow": {"links": links}}


def _translate(info: Any) -> dict[str, str]:
    """Translate what `sd_parsers` returns. Of several samplers the first counts, because the others refine."""
    sampler = info.samplers[0]
    values, rest = sampler.parameters, info.metadata
    name, schedule = _split_sampler(str(sampler.name), values.get("scheduler", rest.get("scheduler")))
    schedule = _text(rest.get("noise_schedule")) or schedule  # NovelAI's
    width, height = _size(rest)
    settings = {
        "steps": values.get("steps", rest.get("steps")),
        "guidance_scale": values.get("cfg_scale"),
        "seed": values.get("seed", values.get("noise_seed")),
        "width": width,
        "height": height,
    }
    valid = {key: value for key, value in settings.items() if _is_valid(key, value)}
    pairs = {
        "Prompt": ", ".join(filter(None, (_text(p.value) for p in sampler.prompts))),
        "Negative prompt": ", ".join(filter(None, (_text(p.value) for p in sampler.negative_prompts))),
        "Steps": valid.get("steps", ""),
        "Sampler": _LABELS.get(name, name),
        "Schedule type": "Karras" if schedule == "karras" else schedule,
        "CFG scale": valid.get("guidance_scale", ""),
        "Seed": valid.get("seed", ""),
        "Size": f"{width}x{height}" if {"width", "height"} <= set(valid) else "",
        "Model": _text(getattr(sampler.model, "name", None))[:200],
    }
    return {key: str(value) for key, value in pairs.items() if value != ""}


def _split_sampler(name: str, schedule: Any) -> tuple[str, str]:
    """Return (sampler, schedule). InvokeAI writes `dpmpp_2m_k`, NovelAI `k_dpmpp_2m`, the others two words."""
    name = name.lower()[:60].removeprefix("k_")
    if name.endswith("_k"):
        return name.removesuffix("_k"), "karras"
    return name, "" if schedule == name else _text(schedule)[:60]


def _size(rest: Mapping[str, Any]) -> tuple[Any, Any]:
    """Width and height: Fooocus' `(896, 1152)`, or two fields, or those of ComfyUI's first empty latents."""
    if "resolution" in rest:
        width, _, height = _text(rest["resolution"]).strip("()").partition(",")
        return _number(width), _number(height)
    if "width" in rest:
        return rest["width"], rest.get("height")
    empty = [name for name in rest if name.startswith("Empty") and "LatentImage" in name]
    first = rest[empty[0]][0] if empty else {}
    return first.get("width"), first.get("height")


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() and len(text) < 10 else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _is_valid(name: str, value: Any) -> bool:
    """Whether a setting accepts a value. A boolean is not accepted as a number."""
    if value is None or isinstance(value, bool):
        return False
    try:
        validate(GenerateSettings, {name: value})
    except UsageError:
        return False
    return True
