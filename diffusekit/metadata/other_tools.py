"""What pictures of ComfyUI, InvokeAI, NovelAI and Fooocus say of themselves, in A1111's words.

`sd_parsers` reads their texts; here they are kept small before, and translated after. Strangers' files say
anything: what cannot be used is left out, and nothing here raises. Knows no files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import UsageError
from ..schedule import SAMPLERS
from ..settings import GenerateSettings, validate

_MOST = 1_000_000  # characters of a text that is read
_NODES, _LINKS, _VISITS = 500, 2000, 10_000  # of ComfyUI's graph; more would take long to walk
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
# Samplers by what others call them, without what they call the schedule of noise levels.
_SAMPLERS = {
    "euler": "euler",
    "euler_ancestral": "euler_a",
    "euler_a": "euler_a",
    "heun": "heun",
    "dpmpp_2m": "dpm++_2m",
    "dpmpp_2m_sde": "dpm++_2m_sde",
    "dpmpp_2m_sde_gpu": "dpm++_2m_sde",
    "uni_pc": "unipc",
    "unipc": "unipc",
    "lms": "lms",
    "ddim": "ddim",
    "ddim_v3": "ddim",
    "ddpm": "ddpm",
    "lcm": "lcm",
    "plms": "pndm",
    "pndm": "pndm",
}


def read_parameters(texts: Mapping[str, str]) -> dict[str, str]:
    """The texts of a picture as a flat dictionary with A1111's keys and `Program`; empty if it is none of
    theirs."""
    from sd_parsers import parsers

    fooocus = texts.get("parameters", "").lstrip().startswith("{")
    known = (
        ("ComfyUI", "prompt" in texts, parsers.ComfyUIParser, _graph),
        ("InvokeAI", {"invokeai_metadata", "sd-metadata", "Dream"} & set(texts), parsers.InvokeAIParser, dict),
        ("NovelAI", texts.get("Software") == "NovelAI", parsers.NovelAIParser, dict),
        ("Fooocus", fooocus, parsers.FooocusParser, dict),
    )
    kept = {key: text for key, text in texts.items() if len(text) <= _MOST}
    # what is no JSON is searched for patterns that take very long on many spaces
    kept |= {key: " ".join(kept[key].split()) for key in ("Dream", "Source") if key in kept}
    for program, is_it, parser, prepared in known:
        if not is_it:
            continue
        try:
            said = _said(parser().parse(prepared(kept)))
        except Exception:  # the parsers trust the file: anything may be raised by one that lies
            continue
        if said:
            return {"Prompt": "", "Negative prompt": ""} | said | {"Program": program}
    return {}


def _graph(texts: Mapping[str, str]) -> dict[str, Any]:
    """ComfyUI's graph, without what no picture needs to be made again, and with its links listed.

    The editor's own `workflow`, which has such a list, is not always there. Raises `ValueError` for a
    graph that is too large to be walked.
    """
    graph: dict[str, dict[str, Any]] = {}
    links: list[tuple[int, str, int, str, int, str]] = []
    samplers = 0
    for number, node in json.loads(texts["prompt"]).items():
        inputs, kind = node["inputs"], str(node.get("class_type"))
        for name, value in inputs.items():
            if isinstance(value, list) and len(value) == 2:
                behind = "CLIP" if name == "clip" else "*"  # no prompt is looked for behind those
                links.append((len(links), str(value[0]), 0, number, 0, behind))
        sampler = "sampler_name" in inputs
        samplers += sampler
        own = {
            name: value
            for name, value in inputs.items()
            if name in _INPUTS and (sampler or not isinstance(value, list))
        }
        graph[number] = {"class_type": kind if kind.startswith("Empty") else "", "inputs": own}
    if len(graph) > _NODES or len(links) > _LINKS or samplers * len(links) > _VISITS:
        raise ValueError("a graph that is too large")
    return {"prompt": graph, "workflow": {"links": links}}


def _said(found: Any) -> dict[str, str]:
    """A1111's keys from what `sd_parsers` found. Of several samplers the first counts: the others refine."""
    sampler = found.samplers[0]
    values, rest = sampler.parameters, found.metadata
    name, schedule = _sampler(str(sampler.name), values.get("scheduler", rest.get("scheduler")))
    schedule = _text(rest.get("noise_schedule")) or schedule  # NovelAI's
    width, height = _size(rest)
    settings = {
        "steps": values.get("steps", rest.get("steps")),
        "guidance_scale": values.get("cfg_scale"),
        "seed": values.get("seed", values.get("noise_seed")),
        "width": width,
        "height": height,
    }
    good = {key: value for key, value in settings.items() if _usable(key, value)}
    pairs = {
        "Prompt": ", ".join(filter(None, (_text(p.value) for p in sampler.prompts))),
        "Negative prompt": ", ".join(filter(None, (_text(p.value) for p in sampler.negative_prompts))),
        "Steps": good.get("steps", ""),
        "Sampler": SAMPLERS[_SAMPLERS[name]].label if name in _SAMPLERS else name,
        "Schedule type": "Karras" if schedule == "karras" else schedule,
        "CFG scale": good.get("guidance_scale", ""),
        "Seed": good.get("seed", ""),
        "Size": f"{width}x{height}" if {"width", "height"} <= set(good) else "",
        "Model": _text(getattr(sampler.model, "name", None))[:200],
    }
    return {key: str(value) for key, value in pairs.items() if value != ""}


def _sampler(name: str, schedule: Any) -> tuple[str, str]:
    """(sampler, schedule): InvokeAI writes `dpmpp_2m_k`, NovelAI `k_dpmpp_2m`, the others two words."""
    name = name.lower()[:60].removeprefix("k_")
    if name.endswith("_k"):
        return name.removesuffix("_k"), "karras"
    return name, "" if schedule == name else _text(schedule)[:60]


def _size(rest: Mapping[str, Any]) -> tuple[Any, Any]:
    """Width and height of the first latents, or as a field tells them, or Fooocus' `(896, 1152)`."""
    if "resolution" in rest:
        width, _, height = _text(rest["resolution"]).strip("()").partition(",")
        return _number(width), _number(height)
    if "width" in rest:
        return rest["width"], rest.get("height")
    empty = [kind for kind in rest if "LatentImage" in kind and kind.startswith("Empty")]
    first = rest[empty[0]][0] if empty else {}
    return first.get("width"), first.get("height")


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() and len(text) < 10 else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _usable(name: str, value: Any) -> bool:
    """Whether a setting takes a value; a truth is no number here."""
    if value is None or isinstance(value, bool):
        return False
    try:
        validate(GenerateSettings, {name: value})
    except UsageError:
        return False
    return True
