"""What another program's metadata says, in A1111's keys, and which settings of ours that gives.

The input is untrusted. A value that is missing or cannot be used is never replaced in silence: `restore` names it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..display import quote
from ..errors import UsageError
from ..lora_request import find_tags
from ..schedule import SAMPLERS, TRAILING_SCHEDULES, Sampler, uses_spacing
from ..settings import MAX_PROMPT, GenerateSettings, validate

PROMPTS = ("Prompt", "Negative prompt")
_MAX_VALUE = 2000  # characters of a value that is not a prompt
# A1111's key of each setting. The size is two settings, and a sampler is a name and a schedule.
_KEYS = {
    "prompt": "Prompt",
    "negative_prompt": "Negative prompt",
    "sampler": "Sampler",
    "steps": "Steps",
    "guidance_scale": "CFG scale",
    "seed": "Seed",
    "width": "Size",
    "height": "Size",
}
_RESCALE = "CFG rescale"  # SD.Next's key, which is written only where it has an effect
_USED = {*_KEYS.values(), _RESCALE, "Schedule type", "Scheduler", "Emphasis"}
_PLAIN_VERSION = re.compile(r"diffusekit 0\.[1-5]\b")  # versions of diffusekit that read all prompts as plain text
# Fields that say where an image comes from, and change nothing in it.
_NEUTRAL = {"Program", "Version", "Model hash", "VAE hash", "TI hashes", "Hashes", "User", "App", "RNG", "Created Date"}
_NEUTRAL |= {"Lora hashes"}
_PLAIN_SCHEDULES = (
    "",
    "automatic",
    "normal",
    "native",
    "default",
    "none",
    "uniform",
    "discrete",
)  # the sampler's own spacing
_SUFFIXES = (
    "karras",
    "polyexponential",
    "exponential",
    "sgm uniform",
    "beta",
    "simple",
    "trailing",
    "align your steps",
    "ays",
)
_SHORT = {"k": "karras", "ka": "karras"}  # InvokeAI's and Draw Things' ends of a name


@dataclass(frozen=True)
class Reading:
    """What the metadata of one program says.

    `parameters` are A1111's keys with their values. `unknown` are the keys whose value cannot be known, each with the
    reason: "comes from node 20 of class Wildcards".
    """

    program: str
    parameters: Mapping[str, str]
    unknown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Restored:
    """Settings from the metadata of another program.

    `missing` names each setting that has its default because the metadata has no value that can be used, with the
    reason. `unused` are the other fields that shaped the image and have no effect here.
    """

    settings: GenerateSettings
    missing: Mapping[str, str]
    unused: Mapping[str, str]


def make_reading(program: str, values: Mapping[str, Any], unknown: Mapping[str, str] | None = None) -> Reading:
    """Make a reading from raw values. What is not text or a number becomes unknown, and None and "" are left out."""
    parameters: dict[str, str] = dict.fromkeys(PROMPTS, "")
    reasons = dict(unknown or {})
    for key, value in values.items():
        if value is None or value == "":
            continue
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            reasons.setdefault(key, f"is {type(value).__name__}, not text or a number")
        elif len(text := _text(value)) <= (MAX_PROMPT if key in PROMPTS else _MAX_VALUE):
            parameters[key] = text.strip() if key in PROMPTS else text
        else:
            reasons.setdefault(key, f"is too long: {len(text)} characters")
    return Reading(program, parameters | {"Program": program}, reasons)


def _text(value: str | float) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def has_settings(parameters: Mapping[str, str]) -> bool:
    """Whether there is more than prompts: a field from which an image can be repeated."""
    return any(parameters.get(key) for key in ("Steps", "Sampler", "CFG scale", "Seed", "Size"))


def restore(parameters: Mapping[str, str], unknown: Mapping[str, str]) -> Restored:
    """Translate A1111's keys into settings, as far as they mean the same here.

    The model stays at its default, because another program's name for it says nothing here.
    """
    sides = f"{parameters.get('width', '')}x{parameters.get('height', '')}"  # Civitai has these, and not always a size
    width, _, height = (parameters.get("Size") or sides).lower().partition("x")
    given: dict[str, Any] = {name: parameters.get(key, "") for name, key in _KEYS.items()}
    given |= {"width": width.strip(), "height": height.strip()}
    missing = {name: unknown[key] for name, key in _KEYS.items() if key in unknown}
    values: dict[str, Any] = {"prompt_syntax": _syntax(parameters)}
    schedule = parameters.get("Schedule type") or parameters.get("Scheduler", "")
    asked = given["sampler"]
    given["sampler"], reason = translate_sampler(asked, schedule)
    if uses_spacing(given["sampler"] or "") and _split_schedule(asked, schedule.lower())[1] in TRAILING_SCHEDULES:
        values["spacing"] = "trailing"
    if reason:
        missing.setdefault("sampler", reason)
    if parameters.get(_RESCALE):
        given["guidance_rescale"] = parameters[_RESCALE]
    for name, value in given.items():
        if value in ("", None):
            if name not in ("prompt", "negative_prompt"):
                missing.setdefault(name, "is not in the metadata")
            continue
        try:
            validate(GenerateSettings, {name: value})
        except UsageError as error:
            missing.setdefault(name, f"is {quote(str(value), 40)}, but {_expectation(error)}")
        else:
            values[name] = value
    if str(values.get("seed", "")).strip() == "-1":  # a request for a random seed, which an image does not have
        missing["seed"] = f"is {quote(str(values.pop('seed')))}, but it should be 0 or more"
    if values["prompt_syntax"] == "plain" and parameters.get("Lora hashes"):
        values["prompt"], values["lora"] = _take_tags(values.get("prompt", ""))
    if "width" in missing or "height" in missing:  # one side alone is a size that the image did not have
        values = {name: value for name, value in values.items() if name not in ("width", "height")}
    unused = {k: v for k, v in parameters.items() if v and k not in _USED | _NEUTRAL and k[:1].isupper()}
    return Restored(validate(GenerateSettings, values), missing, unused)


def _take_tags(prompt: str) -> tuple[str, list[str]]:
    """Return a prompt without the LoRA tags at its end, where our infotext has those of the settings."""
    loras: list[str] = []
    for start, end, text in reversed([*find_tags(prompt)]):
        if prompt[end:].strip():
            break
        prompt = prompt[:start].rstrip()
        loras.insert(0, text)
    return prompt, loras


def _syntax(parameters: Mapping[str, str]) -> str:
    """How the prompts were read. Of the programs here, only A1111 and its descendants have the syntax of A1111."""
    is_plain = parameters.get("Emphasis") == "None" or _PLAIN_VERSION.match(parameters.get("Version", ""))
    return "plain" if "Program" in parameters or is_plain else "a1111"


def _expectation(error: UsageError) -> str:
    """What a setting expects, from the message "`steps` should be …, got …"."""
    expected = error.message.partition("` ")[2].rpartition(", got ")[0].removeprefix("String ")
    return expected.replace("should", "it should", 1) or error.message


def translate_sampler(label: str, schedule: str = "") -> tuple[str | None, str]:
    """Return our name of another program's sampler, and what differs ("" if nothing does).

    The name is None when there is no such sampler here. Old names hold the schedule: "DPM++ 2M Karras",
    "dpmpp_2m_k", "k_euler_a".
    """
    name, wanted = _split_schedule(label.strip(), schedule.strip().lower().replace("_", " "))
    if not name:
        return None, ""
    asked = quote(f"{label.strip()} {schedule.strip()}".strip())
    labels = {s.label for own, s in SAMPLERS.items() if name in _names(own, s)}
    matches = [own for own, sampler in SAMPLERS.items() if sampler.label in labels]
    if not matches:
        near = difflib.get_close_matches(name, [s.label.lower() for s in SAMPLERS.values()], 1)
        return None, f"is {asked}, which does not exist here{_suggest(near)}"
    for own in matches:
        if SAMPLERS[own].schedule_type.lower() == wanted:
            return own, ""
    own = next((m for m in matches if not SAMPLERS[m].schedule_type), matches[0])
    if wanted in (*_PLAIN_SCHEDULES, *TRAILING_SCHEDULES) and not SAMPLERS[own].schedule_type:
        return own, ""
    return own, f"is {asked}, and {own} does not have the schedule {quote(wanted, 30)} here"


def _suggest(near: list[str]) -> str:
    return f" (similar: {near[0]})" if near else ""


def _names(own: str, sampler: Sampler) -> set[str]:
    return {own, sampler.label.lower(), *sampler.aliases, *(f"k_{alias}" for alias in sampler.aliases)}


def _split_schedule(label: str, schedule: str) -> tuple[str, str]:
    """Split "DPM++ 2M Karras" into the sampler's name and its schedule, both in lower case."""
    name = label.lower()[:100]
    for suffix in _SUFFIXES:
        for separator in (" ", "_"):
            if name.endswith(end := separator + suffix.replace(" ", separator)):
                return name.removesuffix(end), suffix
    head, _, last = name.rpartition("_")
    if head and last in _SHORT:
        return head, _SHORT[last]
    return name, "" if schedule in (name.replace("_", " "), *_PLAIN_SCHEDULES) else schedule
