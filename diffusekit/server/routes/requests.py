"""What requests of the APIs have in common: null fields, names of samplers, sizes, base64, fields without effect."""

from __future__ import annotations

import base64
import binascii
import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, model_validator

from ...errors import FileRefused, UsageError
from ...model_files import SamplingDefaults
from ...schedule import SAMPLERS, TRAILING_SCHEDULES, Sampler, uses_spacing
from ..models import ServerModels

MAX_WARNINGS = 20  # of fields in one response
SCHEDULE_ENDINGS = {"karras": "Karras", "ka": "Karras", "k": "Karras", "exponential": "Exponential"}
SCHEDULE_ENDINGS |= {"polyexponential": "Polyexponential", "sgmuniform": "SGM Uniform", "beta": "Beta"}
SCHEDULE_ENDINGS |= {"simple": "Simple"}
# The fields of another API that have no effect here, and the values with which they change nothing there either.
# None is any value.
Neutral = Mapping[str, Collection[Any] | None]


class ApiRequest(BaseModel):
    """A request of another API: a field that is null has its default, and unknown fields are kept to be named."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {name: value for name, value in values.items() if value is not None}
        return values


# --- fields without effect ---------------------------------------------------------------------


def ignored_fields(
    given: Mapping[str, Any], neutral: Neutral, known: Iterable[str] = (), *, prefix: str = ""
) -> list[str]:
    """A sentence about each given field that changes nothing; `known` have an effect, for misspelled names."""
    sentences = []
    for name, value in given.items():
        if value is None:
            continue
        label = f"{prefix}{name[:60]}"
        if name not in neutral:
            near = difflib.get_close_matches(name, [*known, *neutral], 1)
            hint = f" (did you mean {prefix}{near[0]}?)" if near else ""
            sentences.append(f"{label} is not a known field and has no effect{hint}")
        elif not _is_neutral(value, neutral[name]):
            sentences.append(f"{label} has no effect on this server")
    return sentences[:MAX_WARNINGS]


def _is_neutral(value: Any, values: Collection[Any] | None) -> bool:
    if values is None or value in values:
        return True
    return value in ("", [], {}) or (not value and True not in values)


def spell_fields(sentences: Iterable[str], fields: Mapping[str, str]) -> list[str]:
    """Warnings of the library, with its settings as the clients of an API spell them."""
    return [re.sub(r"`(\w+)`", lambda match: fields.get(match[1], match[1]), sentence) for sentence in sentences]


# --- samplers ----------------------------------------------------------------------------------


def sampler_settings(name: str | None, schedule: str | None, default: str) -> tuple[dict[str, str], list[str]]:
    """The settings `sampler` and `spacing` of a request, as far as it has them, and warnings as of `find_sampler`.

    `default` is the sampler of a request that names none.
    """
    own, warnings = find_sampler(name, schedule, default=default)
    wanted = {_simplify(schedule or ""), _match_sampler(name or "")[1]}
    is_trailing = bool(wanted & _TRAILING) and uses_spacing(own or default)
    return ({"sampler": own} if own else {}) | ({"spacing": "trailing"} if is_trailing else {}), warnings


def find_sampler(
    name: str | None, schedule: str | None = None, *, default: str = SamplingDefaults.sampler
) -> tuple[str | None, list[str]]:
    """Our name of a sampler by any usual one, and a warning for a schedule that it does not have.

    It may be our own name, A1111's label with or without the schedule, or a name of k-diffusion, ComfyUI, InvokeAI or
    diffusers. Without a name it is None, for `default`. Raises `UsageError` for an unknown name.
    """
    wanted = _simplify(schedule or "")
    wanted = "" if wanted == "automatic" else wanted
    own, ending = _match_sampler(name or "")
    if name and name.strip() and own is None:
        labels = ", ".join(dict.fromkeys(sampler.label for sampler in SAMPLERS.values()))
        raise UsageError(f"sampler {name[:60]!r} is not known", f"there are: {labels}")
    wanted = wanted or ending
    wanted = _simplify(SCHEDULE_ENDINGS.get(wanted, wanted))
    if not wanted or (wanted in _TRAILING and uses_spacing(own or default)):
        return own, []
    start = SAMPLERS[own or default]
    if _simplify(start.schedule_type) == wanted:
        return own, []
    for other, sampler in SAMPLERS.items():
        if sampler.label == start.label and _simplify(sampler.schedule_type) == wanted:
            return other, []
    title = schedule if schedule and _simplify(schedule) != "automatic" else SCHEDULE_ENDINGS.get(ending, ending)
    return own, [f"the scheduler {title[:60]!r} has no effect with the sampler {start.label}"]


def _match_sampler(name: str) -> tuple[str | None, str]:
    """Our name of a sampler, and the schedule at the end of its name, if that is not the sampler's own."""
    words = _simplify(re.sub(r"^\s*(k_|sample_)", "", name.lower()))
    if words in _NAMES:
        return _NAMES[words], ""
    for ending in sorted(SCHEDULE_ENDINGS, key=len, reverse=True):
        if words.endswith(ending) and words.removesuffix(ending) in _NAMES:
            return _NAMES[words.removesuffix(ending)], ending
    return None, ""


def _simplify(name: str) -> str:
    """A name without what programs write differently: case, spaces, dashes, and p for +."""
    return re.sub(r"[\s_./()-]+", "", name.lower().replace("+", "p"))


def _names_of(own: str, sampler: Sampler) -> set[str]:
    """The usual names of a sampler, simplified."""
    names = [sampler.label, *sampler.aliases]
    if not set(sampler.options) - {"skip_prk_steps"}:  # with options it is not what the name of the class means
        short = sampler.scheduler.removesuffix("Scheduler")
        names += [sampler.scheduler, short, short.replace("Discrete", "")]
    return {_simplify(own), *(_simplify(f"{name} {sampler.schedule_type}") for name in names)}


_TRAILING = {_simplify(name) for name in TRAILING_SCHEDULES}
_NAMES = {words: own for own, sampler in reversed(SAMPLERS.items()) for words in _names_of(own, sampler)}


# --- sizes -------------------------------------------------------------------------------------


def fit_size(
    models: ServerModels, model: str, width: int | None, height: int | None
) -> tuple[dict[str, int], list[str]]:
    """Width and height as the model takes them: the nearest multiple; and a sentence if that is another size.

    What no image can have is left to the check of the settings.
    """
    given = {name: value for name, value in (("width", width), ("height", height)) if value is not None}
    info = models.describe(model)
    if info is None or not given:
        return given, []
    fitted = {name: info.nearest_side(value) if 8 <= value <= 8192 else value for name, value in given.items()}
    full = {"width": info.native_size, "height": info.native_size} | fitted
    size, warnings = f"{full['width']}x{full['height']}", []
    if fitted != given:
        asked = "x".join(str(value) for value in given.values())
        multiple = info.size_multiple
        warnings.append(f"the size {asked} became {size}, because sides are multiples of {multiple} for this model")
    if full["width"] * full["height"] > 4 * info.native_size**2:
        native = f"{info.native_size}x{info.native_size}"
        warnings.append(f"{size} is far above the model's native {native}, where images repeat what they show")
    return fitted, warnings


# --- base64 ------------------------------------------------------------------------------------


def decode_base64(text: str) -> bytes:
    """The bytes of base64 as clients send it: plain or url-safe, as a `data:` URL, with line breaks, without padding.

    Raises `FileRefused` for anything else.
    """
    text = text.strip("\ufeff \t\r\n")
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise FileRefused("the image is a data: URL without base64", "send data:image/png;base64,…")
        text = unquote(text)
    letters = re.sub(r"\s+", "", text).translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        data = base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data:
        raise FileRefused("the image is not in base64", "send an image file")
    return data


def first_of(*texts: str | None) -> str:
    """The first text that is not blank."""
    return next((text for text in texts if text and text.strip()), "")


def merge(*lists: Sequence[str]) -> list[str]:
    """All sentences once, in order."""
    return list(dict.fromkeys(sentence for sentences in lists for sentence in sentences))
