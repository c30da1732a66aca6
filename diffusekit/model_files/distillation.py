"""Steps, sampler, guidance and spacing that suit a model: models of few steps are recognized from their files.

`RULES` is the whole table of what is recognized by a name. A name is that of the model, the `_name_or_path` of its
configurations, or the title inside its file. The U-Net and the scheduler are looked at in `find_defaults`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..display import quote

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_STEPS = re.compile(r"\b(\d{1,2}) steps?\b")
_FILE_ENDINGS = (".safetensors", ".sft", ".ckpt")
_PARTS = {"unet", "vae", "scheduler", "text_encoder", "text_encoder_2", "snapshots"}
_GUIDANCE = {"sdxl": 5.0}  # diffusers' default; that of the other families is 7.5
_LCM_SCHEDULERS = {"LCMScheduler": "an LCM", "TCDScheduler": "a TCD model"}


@dataclass(frozen=True)
class SamplingDefaults:
    """What suits a model where settings are not given.

    `kind` is what a model of few steps is, like "an LCM", and "" for other models. `reason` says how it was recognized.
    `scheduler` are the keys that replace those of the model's scheduler configuration. `doubt` is a sentence about
    a model that may be one of few steps.
    """

    steps: int = 20
    sampler: str = "dpm++_2m"
    guidance_scale: float = 7.5
    kind: str = ""
    reason: str = ""
    scheduler: tuple[tuple[str, str], ...] = ()
    doubt: str = ""


@dataclass(frozen=True)
class Rule:
    """One kind of model of few steps that has its own name.

    `pattern` is searched in the words of a name in lower case: "Hyper-SDXL-8steps-CFG" is "hyper sdxl 8 steps cfg".
    A number of steps in the name replaces `steps`. `samplers` are the default, then others that are used where the
    model's scheduler is theirs. `families` are those in which the name means this kind.
    """

    kind: str
    pattern: str
    steps: int
    samplers: tuple[str, ...]
    guidance_scale: float = 1.0
    spacing: str = "trailing"
    families: tuple[str, ...] = ("sd1", "sd2", "sdxl")
    prediction_type: str = ""


# The first match counts. The values are those of the model cards. For merges, which have many authors, they are the
# middle of what their cards say.
RULES = (
    Rule("an SDXS model", r"\bsdxs\b", 1, ("pndm", "euler")),
    Rule("a Hyper-SD model", r"\bhyper (sd|sdxl|xl) .*\b1 steps?\b", 1, ("lcm",)),
    Rule("a Hyper-SD model", r"\bhyper (sd|sdxl|xl)\b.*\bcfg\b", 8, ("ddim",), 5.0),
    Rule("a Hyper-SD model", r"\bhyper (sd|sdxl|xl)\b|\bhyper \d+ steps?\b", 8, ("ddim",)),
    Rule("an LCM", r"\blcm\b|\blatent consistency\b", 4, ("lcm",), spacing=""),
    Rule(
        "a Lightning model",
        r"\blightning 1 steps?\b.*\bx 0\b",
        1,
        ("euler",),
        families=("sdxl",),
        prediction_type="sample",
    ),
    Rule("a Lightning model", r"\blightning \d+ steps?\b", 4, ("euler", "euler_a"), families=("sdxl",)),
    Rule("a merge with Lightning", r"\blightning\b", 6, ("euler", "euler_a"), 2.0, families=("sdxl",)),
    Rule(
        "a Turbo model",
        r"^(sd|sdxl|sd xl) turbo( v)?( \d+)*( fp \d+)?( lora)?( v \d+)?$",
        1,
        ("euler_a", "euler"),
        families=("sd2", "sdxl"),
    ),
    Rule("a merge with Turbo", r"\bturbo\b", 6, ("euler_a", "euler"), 2.0, families=("sdxl",)),
)
_SCHEDULER_SAMPLERS = {
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_a",
    "PNDMScheduler": "pndm",
}


def find_defaults(
    name: str,
    family: str,
    unet: Mapping[str, Any],
    scheduler: Mapping[str, Any],
    *,
    names: Mapping[str, object] | None = None,
) -> SamplingDefaults:
    """Return what suits the model `name`, from the configurations of its U-Net and its scheduler.

    `family` is sd1, sd2 or sdxl. `names` are other names of it, each with where it is: {"the title in its file":
    "SDXL Turbo"}.
    """
    if unet.get("time_cond_proj_dim") is not None:
        return SamplingDefaults(4, "lcm", 8.0, "an LCM", "its U-Net takes the guidance scale as an input")
    places = {"its name": name, **(names or {}), "the origin of its U-Net": unet.get("_name_or_path")}
    for place, text in places.items():
        if found := _match(text, family, scheduler):
            return replace(found, reason=f"{place} is {quote(_last_part(str(text)), 60)}")
    return _from_scheduler(unet, scheduler, family)


def find_lora_defaults(name: str, title: str = "") -> SamplingDefaults | None:
    """Return what suits a model with the LoRA `name`, if it is one for few steps, like lcm-lora-sdv1-5.

    `title` is the one in its metadata.
    """
    for text in (name, title):
        for family in ("sdxl", "sd1"):
            if found := _match(text, family, {}):
                return replace(found, reason=f"the name of the LoRA is {quote(text, 60)}")
    return None


def split_words(name: str) -> str:
    """Return the words of a name in lower case: "dreamshaperXL_v21TurboDPM" is "dreamshaper xl v 21 turbo dpm"."""
    return " ".join(word.lower() for word in _WORDS.findall(name))


def _match(text: object, family: str, scheduler: Mapping[str, Any]) -> SamplingDefaults | None:
    if not isinstance(text, str) or not text.strip():
        return None
    words = split_words(_last_part(text)[:200])
    rule = next((rule for rule in RULES if family in rule.families and re.search(rule.pattern, words)), None)
    if rule is None:
        return None
    number = _STEPS.search(words)
    own = _SCHEDULER_SAMPLERS.get(str(scheduler.get("_class_name")))
    keys = {"timestep_spacing": rule.spacing, "prediction_type": rule.prediction_type}
    return SamplingDefaults(
        steps=min(max(int(number[1]), 1), 50) if number else rule.steps,
        sampler=own if own in rule.samplers else rule.samplers[0],
        guidance_scale=rule.guidance_scale,
        kind=rule.kind,
        scheduler=tuple((key, value) for key, value in keys.items() if value),
    )


def _last_part(text: str) -> str:
    """Return the name in a path, a hub id or a path in the hub's cache: "sd-turbo" of ".../sd-turbo/unet"."""
    parts = [part for part in re.split(r"[/\\]", text.partition("@")[0]) if part]
    cached = [part for part in parts if part.startswith("models--")]
    if cached:
        return cached[-1].rpartition("--")[2]
    while len(parts) > 1 and parts[-1] in _PARTS:
        parts.pop()
    name = parts[-1] if parts else ""
    ending = next((ending for ending in _FILE_ENDINGS if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)]


def _from_scheduler(unet: Mapping[str, Any], scheduler: Mapping[str, Any], family: str) -> SamplingDefaults:
    """Look at the scheduler that a model comes with. Turbo's is that of few other models, and not of it alone."""
    given = str(scheduler.get("_class_name"))
    if kind := _LCM_SCHEDULERS.get(given):
        return SamplingDefaults(4, "lcm", 1.0, kind, f"its scheduler is the {given}")
    is_euler = _SCHEDULER_SAMPLERS.get(given, "").startswith("euler")
    is_plain = scheduler.get("prediction_type", "epsilon") == "epsilon" and not scheduler.get("rescale_betas_zero_snr")
    usual = SamplingDefaults(guidance_scale=_GUIDANCE.get(family, 7.5))
    if not (is_euler and is_plain and scheduler.get("timestep_spacing") == "trailing"):
        return usual
    spacing = f"its scheduler is the {given} with trailing spacing"
    if family != "sd1" and unet.get("sample_size") in (64, [64, 64]):
        sampler = _SCHEDULER_SAMPLERS[given]
        return SamplingDefaults(1, sampler, 1.0, "a Turbo model", f"{spacing}, and its images have 512 pixels")
    return replace(usual, doubt=f"{spacing}, as in models of few steps and in some others")
