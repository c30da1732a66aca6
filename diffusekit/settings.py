"""Settings: one frozen, checked model per verb, and the layers its values come from.

The same fields make the command line's flags, the TOML keys, the environment variables and the record
inside a picture. Knows no torch.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .errors import UsageError
from .schedule import SAMPLERS

MAX_PROMPT = 20_000
MAX_SEED = 2**63


def flag(default: Any, sentence: str, *names: str, **checks: Any) -> Any:
    """A field with its sentence; `names` are its spellings on the command line if not `--field-name`."""
    return Field(default, description=sentence, json_schema_extra={"flags": list(names)}, **checks)


class Settings(BaseModel):
    """The base of all settings: frozen, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class GenerateSettings(Settings):
    """Everything that decides a picture. `None` means: what suits the model, or chance for the seed."""

    prompt: str = Field("", description="What the picture shows.", max_length=MAX_PROMPT)
    negative_prompt: str = flag("", "What to steer away from.", "--negative", max_length=MAX_PROMPT)
    model: str = flag(
        "mini",
        "The embedded model `mini`, a folder in diffusers layout, or a hub id like owner/name.",
    )
    steps: int = flag(20, "Denoising steps.", ge=1, le=1000)
    guidance_scale: float | None = flag(
        None, "How strongly the prompt steers; 1 switches guidance off. Default: 3 for mini, 7.5 for others.",
        "--guidance", ge=0, le=100, allow_inf_nan=False,
    )  # fmt: skip
    sampler: str = flag("dpm++_2m", f"How to step from noise to picture: {', '.join(SAMPLERS)}.")
    seed: int | None = flag(
        None,
        "Same seed, same picture; image i of several uses seed + i. Default: by chance.",
        ge=0,
        lt=MAX_SEED,
    )
    images: int = flag(1, "Pictures per prompt.", "--images", "-n", ge=1, le=10_000)
    width: int | None = flag(
        None, "Width in pixels. Default: what the model was made for.", ge=8, le=8192
    )
    height: int | None = flag(
        None, "Height in pixels. Default: what the model was made for.", ge=8, le=8192
    )
    batch: int | None = flag(
        None, "Pictures made at once. Default: 1 on a CPU, 4 on a GPU.", ge=1, le=1024
    )
    device: str = flag("auto", "auto, cpu, cuda, cuda:1, mps or xpu.")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = flag(
        "auto", "Precision of the networks."
    )

    @field_validator("sampler")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in SAMPLERS:
            near = difflib.get_close_matches(name, SAMPLERS, 1)
            raise ValueError(
                f"is none of the samplers{f'; did you mean {near[0]}?' if near else ''}"
            )
        return name


S = TypeVar("S", bound=Settings)


def checked(model: type[S], values: Mapping[str, Any], source: str = "") -> S:
    """Make settings of plain values, or raise a `UsageError` that names the field and what it takes."""
    unknown = [name for name in values if name not in model.model_fields]
    if unknown:
        near = difflib.get_close_matches(unknown[0], model.model_fields, 1)
        hint = (
            f"did you mean {near[0]!r}?"
            if near
            else f"the settings are {', '.join(model.model_fields)}"
        )
        raise UsageError(f"there is no setting {unknown[0]!r}{source}", hint)
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name, got = str(first["loc"][0]), repr(first.get("input"))
        says = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        got = got if len(got) < 60 else f"{got[:50]}… ({len(got)} characters)"
        raise UsageError(
            f"{name} {says}, got {got}{source}", model.model_fields[name].description or ""
        ) from None


def resolve(model: type[S], verb: str, given: Mapping[str, Any]) -> S:
    """Settings from all layers: `given` (flags) over `DIFFUSEKIT_*` over ./diffusekit.toml over the
    user's config folder over defaults. `None` in `given` means not given."""
    values: dict[str, Any] = {}
    for path in config_files():
        layer = _read_toml(path, verb)
        checked(model, layer, f" in {path}")
        values |= layer
    environment = _environment(model)
    checked(model, environment, " in the environment (DIFFUSEKIT_*)")
    values |= environment | {name: value for name, value in given.items() if value is not None}
    return checked(model, values)


def config_files() -> list[Path]:
    """The settings files that exist, the strongest last."""
    import platformdirs

    places = (platformdirs.user_config_path("diffusekit") / "config.toml", Path("diffusekit.toml"))
    return [path for path in places if path.is_file()]


def _read_toml(path: Path, verb: str) -> dict[str, Any]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} is not TOML: {error}", f"write for example:\n[{verb}]\nsteps = 30"
        ) from None
    strays = [name for name, value in tables.items() if not isinstance(value, dict)]
    if strays:
        raise UsageError(
            f"{path}: {strays[0]!r} stands outside a table", f"put it below a line [{verb}]"
        )
    return tables.get(verb, {})


def _environment(model: type[Settings]) -> dict[str, str]:
    named = {f"DIFFUSEKIT_{name.upper()}": name for name in model.model_fields if name != "prompt"}
    return {named[key]: value for key, value in os.environ.items() if key in named}
