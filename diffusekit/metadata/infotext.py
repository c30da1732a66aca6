"""A1111's infotext: the prompt, the negative prompt and the settings, as text.

A1111 writes the settings as the last line. Extensions put line breaks into it and lines after it. Web sites fold the
whole text into one line. All of that is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..lora_request import parse_request
from ..schedule import SAMPLERS, uses_spacing
from ..settings import GenerateSettings
from .json_text import parse_object
from .parameters import Reading, has_settings, restore
from .record import Record

_NEGATIVE = "Negative prompt:"
_KEY = re.compile(r"\s*(\w[\w \-/.()+]{1,80}):(?!//)\s*")
_QUOTED = re.compile(r'"((?:\\.|[^\\"])*)"\s*(?=,|\n|$)', re.DOTALL)
_END = re.compile(r",|\n")
_STARTS = re.compile(r"^Steps:\s*\d+[ \t]*(?:,|$)", re.MULTILINE)
# Settings within a line: the number of steps, and behind it another of A1111's keys.
_INLINE = re.compile(
    r"(?<!\w)(?<!Hires )Steps: \d+, "
    r"(?=(?:Sampler|Schedule type|Scheduler|CFG scale|Seed|Size|Model|Model hash|Version): )"
)
# Values that tell settings from a prompt with colons in it.
_NUMBERS = {
    "Steps": re.compile(r"\d+"),
    "CFG scale": re.compile(r"-?\d+(\.\d+)?"),
    "Seed": re.compile(r"-?\d+"),
    "Size": re.compile(r"\d+x\d+"),
}
_ONE_WORD = {*_NUMBERS, "Sampler", "Schedule type", "Scheduler", "Model", "Model hash", "Version", "Clip skip"}
_FIRST = {*_ONE_WORD, "Performance", "Styles", "Resolution"}  # A1111, and Fooocus in A1111's scheme
# A1111's names of `mask_content`.
MASKED_CONTENT = {"fill": "fill", "original": "original", "noise": "latent noise", "nothing": "latent nothing"}
_MAX_TRIALS = 10  # places that are tried as the start of the settings, and values that are tried as JSON
_MAX_SETTINGS = 200_000  # characters that are searched for pairs
_DECODER = json.JSONDecoder(strict=False)


def format_infotext(record: Record) -> str:
    """Write the text that A1111 and Forge read.

    The line of the negative prompt is always there, because ComfyUI looks for it. `Emphasis: None` tells A1111
    that brackets in the prompts were read as plain text. LoRA files of the settings are tags at the end of the prompt.
    """
    s = record.settings
    sampler = SAMPLERS[s.sampler] if s.sampler else None
    trailing = "SGM Uniform" if s.spacing == "trailing" and uses_spacing(s.sampler or "") else ""
    pairs: dict[str, Any] = {
        "Steps": s.steps,
        "Sampler": sampler.label if sampler else "",
        "Schedule type": (sampler.schedule_type or trailing) if sampler else "",
        "CFG scale": s.guidance_scale,
        "CFG rescale": s.guidance_rescale or "",
        "Seed": s.seed,
        "Size": f"{s.width}x{s.height}",
        "Model hash": record.model_hash[:10],
        "Denoising strength": s.strength,
        "Init image hash": record.start_image[:32],
        **(_mask_pairs(s) if record.mask else {}),
        "Model": s.model,
        "VAE hash": record.vae_hash[:10],
        "VAE": s.vae,
        "RNG": "CPU",
        "Emphasis": "None" if s.prompt_syntax == "plain" and set("([") & set(s.prompt + s.negative_prompt) else "",
        "Lora hashes": ", ".join(f"{name}: {sha[:12]}" for name, sha in record.loras.items()),
        "TI hashes": ", ".join(f"{name}: {sha[:12]}" for name, sha in record.embeddings.items()),
        "Version": f"diffusekit {record.versions.get('diffusekit', '')}".strip(),
    }
    for letter, (name, labels) in zip("XYZ", record.axes.items(), strict=False):
        pairs |= {"Script": "X/Y/Z plot", f"{letter} Type": name}
        pairs[f"{letter} Values"] = ", ".join(labels)
    line = ", ".join(f"{key}: {_quote(value)}" for key, value in pairs.items() if value not in ("", None))
    prompt = " ".join([s.prompt, *(parse_request(request).tag for request in s.lora)])
    return f"{prompt}\n{_NEGATIVE} {s.negative_prompt}\n{line}"


def _mask_pairs(s: GenerateSettings) -> dict[str, Any]:
    """The settings of a mask, where they are not A1111's defaults, as A1111 writes them."""
    return {
        "Mask blur": f"{s.mask_blur:g}",
        "Inpaint area": "" if s.mask_padding is None else "Only masked",
        "Masked area padding": s.mask_padding,
        "Mask mode": "Inpaint not masked" if s.invert_mask else "",
        "Masked content": MASKED_CONTENT[s.mask_content] if s.mask_content != "original" else "",
    }


def parse_infotext(text: str) -> dict[str, str]:
    """Split an infotext into A1111's keys and values, plus `Prompt` and `Negative prompt`.

    Text without settings is a prompt. The time is linear in the length of the text.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    start, pairs = _find_settings(text)
    prompts = text[:start]
    lines = prompts.split("\n")
    first = next((i for i, line in enumerate(lines) if _is_negative(line)), len(lines))
    prompt, negative = "\n".join(lines[:first]), "\n".join(lines[first:])[len(_NEGATIVE) :].removeprefix(" ")
    if pairs and first == len(lines):  # no line of its own: the text may have been folded into one line
        prompt, _, negative = prompt.partition(_NEGATIVE)
    return {"Prompt": prompt.strip(), "Negative prompt": negative.strip()} | pairs


def read(texts: Mapping[str, str]) -> Reading | None:
    """Read the infotext of A1111, Forge, SD.Next, Fooocus and Civitai; None for text without settings."""
    text = texts.get("parameters", "")
    pairs = {} if parse_object(text) else parse_infotext(text)
    return Reading("A1111", pairs) if has_settings(pairs) else None


def settings_from_infotext(pairs: dict[str, str]) -> GenerateSettings:
    """Translate the pairs of `parse_infotext` into settings, as far as they mean the same here.

    Values that cannot be used are left out; `parameters.restore` names them.
    """
    return restore(pairs, {}).settings


def _is_negative(line: str) -> bool:
    return line[: len(_NEGATIVE)].lower() == _NEGATIVE.lower()


def _find_settings(text: str) -> tuple[int, dict[str, str]]:
    """Return where the settings start, and the settings: at the end of the text, and {}, if there are none.

    The last line that starts with the number of steps comes first, then the last line with two of A1111's
    numbers, then settings within a line.
    """
    starts = [match.start() for match in _STARTS.finditer(text)][-_MAX_TRIALS:]
    last_line = text.rfind("\n") + 1
    key = _KEY.match(text, last_line)
    inline = [match.start() for match in _INLINE.finditer(text)]
    negative = text.find(_NEGATIVE)
    inline = [start for start in inline if start > negative] or inline
    lines = [*reversed(starts), *([last_line] if key and key[1] in _FIRST else [])]
    for start in dict.fromkeys((*lines, *inline[:_MAX_TRIALS], last_line)):
        spans = _find_pairs(text, start)
        pairs = _read_pairs(text, spans)
        numbers = sum(bool(check.fullmatch(pairs.get(name, ""))) for name, check in _NUMBERS.items())
        if len(pairs) >= 3 and (numbers >= 2 or (numbers and "Sampler" in pairs)):
            for earlier in (other for other in starts if other < start):
                spans = _find_pairs(text, earlier)
                if any(text[first] == '"' and first < start < end for _, first, end in spans if first < len(text)):
                    return earlier, _read_pairs(text, spans)  # what was found is quoted in a value
            return start, pairs
    return len(text), {}


def _find_pairs(text: str, position: int) -> list[tuple[str, int, int]]:
    """Return the pairs from a position on: the key, and the start and end of its value."""
    pairs: list[tuple[str, int, int]] = []
    trials = _MAX_TRIALS
    last = min(len(text), position + _MAX_SETTINGS)
    while position < last:
        if match := _KEY.match(text, position):
            start = match.end()
            end, is_cheap = _find_value(text, start, trials)
            trials -= not is_cheap
            pairs.append((match[1].strip(), start, end))
        else:  # not a pair: more of a value that holds a comma or a line break
            end = _find_end(text, position)
            key, start, _ = pairs[-1] if pairs else ("Steps", 0, 0)
            if key not in _ONE_WORD and text[start] != '"' and text[position:end].strip():
                pairs[-1] = key, start, end
        position = end + 1
    return pairs


def _read_pairs(text: str, spans: Iterable[tuple[str, int, int]]) -> dict[str, str]:
    """Return the keys with their values. The first value of a key counts."""
    found: dict[str, str] = {}
    for key, start, end in spans:
        if key not in found:
            found[key] = _unquote(text[start:end])
    return found


def _find_value(text: str, start: int, trials: int) -> tuple[int, bool]:
    """Return the end of the value at `start`, and False when time was lost on what only looked like JSON."""
    first = text[start : start + 1]
    if trials <= 0 or first not in ('"', "[", "{"):
        return _find_end(text, start), True
    if first == '"':
        if quoted := _QUOTED.match(text, start):
            return quoted.end(), True
    else:
        try:
            return _find_end(text, _DECODER.raw_decode(text, start)[1]), True
        except (ValueError, RecursionError):
            pass
    return _find_end(text, start), False


def _find_end(text: str, start: int) -> int:
    match = _END.search(text, start)
    return match.start() if match else len(text)


def _quote(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(c in text for c in ",\n:") else text


def _unquote(value: str) -> str:
    value = value.strip()
    if value.startswith('"') and value.endswith('"') and len(value) > 1:
        try:
            return str(_DECODER.decode(value))
        except ValueError:
            return value
    return value
