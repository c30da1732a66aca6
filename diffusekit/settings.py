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

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from .errors import UsageError
from .schedule import SAMPLERS

MAX_PROMPT = 20_000
MAX_SEED = 2**63
FAST_DEFAULTS: dict[str, Any] = {"steps": 4, "guidance_scale": 1.0, "sampler": "ddim"}


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
        None,
        "How strongly the prompt steers; 1 switches guidance off. Default: 3 for mini, 7.5 for others.",
        "--guidance",
        ge=0,
        le=100,
        allow_inf_nan=False,
    )
    sampler: str = flag("dpm++_2m", f"How to step from noise to picture: {', '.join(SAMPLERS)}.")
    fast: bool = flag(
        False,
        "Use the weights for few steps that the model brings (mini does): 4 steps, no guidance and ddim, "
        "unless you say otherwise.",
    )
    seed: int | None = flag(
        None,
        "Same seed, same picture; image i of several uses seed + i. Default: by chance.",
        ge=0,
        lt=MAX_SEED,
    )
    images: int = flag(1, "Pictures per prompt.", "--images", "-n", ge=1, le=10_000)
    width: int | None = flag(None, "Width in pixels. Default: what the model was made for.", ge=8, le=8192)
    height: int | None = flag(None, "Height in pixels. Default: what the model was made for.", ge=8, le=8192)
    batch: int | None = flag(None, "Pictures made at once. Default: 1 on a CPU, 4 on a GPU.", ge=1, le=1024)
    embedding: tuple[str, ...] = flag(
        (), "A learned token: its name in ./embeddings, or a path. May be given several times."
    )
    device: str = flag("auto", "auto, cpu, cuda, cuda:1, mps or xpu.")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = flag("auto", "Precision of the networks.")

    @model_validator(mode="before")
    @classmethod
    def _few_steps(cls, values: Any) -> Any:
        """`fast` brings other defaults."""
        if isinstance(values, dict) and _is_yes(values.get("fast")):
            return FAST_DEFAULTS | {name: value for name, value in values.items() if value is not None}
        return values

    @field_validator("embedding", mode="before")
    @classmethod
    def _listed(cls, names: Any) -> Any:
        return _several(names)

    @field_validator("sampler")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in SAMPLERS:
            near = difflib.get_close_matches(name, SAMPLERS, 1)
            raise ValueError(f"is none of the samplers{f'; did you mean {near[0]}?' if near else ''}")
        return name


class InvertSettings(Settings):
    """Everything that decides a learned token (textual inversion, Gal et al., 2022)."""

    pictures: str = Field("", description="The folder with three to five pictures of one thing.")
    token: str = flag("S*", "What the thing is called in prompts.", min_length=1, max_length=60)
    name: str | None = flag(None, "The file's name in the output folder. Default: the pictures' folder's.")
    init: str | None = flag(
        None,
        "Words to start from, like `cat`. Default: words of the folder's name that the model knows.",
    )
    start: Literal["word", "output"] = flag(
        "word",
        "Start from the words' rows of the token table (word), or from what the text encoder makes of "
        "them (output: Cross-Initialization, Pang et al., 2023).",
    )
    property: Literal["object", "style"] = flag(
        "object", "What is learned: an object or a style. Chooses the captions."
    )
    captions: Literal["auto", "templates", "files", "both"] = flag(
        "auto",
        "Captions: a .txt beside a picture where there is one and the paper's templates elsewhere (auto), "
        "templates alone, files alone, or both.",
    )
    vectors: int = flag(1, "How many vectors the token has.", ge=1, le=75)
    steps: int = flag(600, "Training steps at most.", ge=1, le=1_000_000)
    learning_rate: float | None = flag(
        None,
        "Default: a third of a typical entry of the token table, 0.005 for Stable Diffusion 1.x.",
        gt=0,
        allow_inf_nan=False,
    )
    batch: int = flag(4, "Pictures per step, on all devices together.", ge=1, le=1024)
    norm_bound: float = flag(
        1.0,
        "Longest a vector may become, in typical lengths of the token table; 0: no bound.",
        ge=0,
        allow_inf_nan=False,
    )
    pull: float = flag(
        0.0,
        "How strongly vectors are held at their start (weight of the squared distance).",
        ge=0,
        allow_inf_nan=False,
    )
    crops: int = flag(1, "Square crops per picture; 1 is the middle.", ge=1, le=64)
    flip: bool = flag(False, "Also learn from mirrored pictures; not for asymmetric things.")
    alpha_mask: bool = flag(False, "Learn only where pictures are not transparent.")
    model: str = flag("mini", "The model to learn for: mini, a folder, or a hub id.")
    preview: str | None = flag(None, "The prompt of the previews. Default: a picture of the token.", max_length=1000)
    preview_every: int = flag(100, "Steps between previews and scores; 0: only at the end.", ge=0)
    patience: int = flag(3, "Stop when so many previews in a row score no better; 0: never.", ge=0)
    clip: str = flag(
        "openai/clip-vit-large-patch14",
        "The CLIP that judges, if it is in the cache and the model brings none of its own.",
    )
    checkpoint_every: int = flag(50, "Steps between checkpoints.", ge=1)
    seed: int = flag(0, "Same seed, same token.", ge=0, lt=MAX_SEED)
    trackers: tuple[str, ...] = flag((), "Also log to tensorboard, wandb or trackio, when installed.", "--tracker")
    device: str = flag("auto", "auto, cpu, cuda, cuda:1, mps or xpu.")
    dtype: Literal["auto", "float32", "bfloat16"] = flag(
        "auto", "Precision of the frozen networks; the vectors are always float32."
    )

    @field_validator("trackers", mode="before")
    @classmethod
    def _listed(cls, names: Any) -> Any:
        return _several(names)

    @field_validator("trackers")
    @classmethod
    def _tracked(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if strange := set(names) - {"tensorboard", "wandb", "trackio"}:
            raise ValueError(f"knows no {', '.join(sorted(strange))}")
        return names


class ServeSettings(Settings):
    """Where the server listens, who may use it, and how much one request may ask for."""

    host: str = flag("127.0.0.1", "The address to listen on; any but this machine's own needs a key.")
    port: int = flag(7860, "The port; 0 takes a free one.", ge=0, le=65_535)
    model: str = flag("mini", "The model of requests that name none: mini, a folder, or a hub id.")
    auth: str | None = flag(None, "USER:PASSWORD that clients must give; best in the variable DIFFUSEKIT_AUTH.")
    token: str | None = flag(None, "A bearer token that clients must give; best in the variable DIFFUSEKIT_TOKEN.")
    allow_host: tuple[str, ...] = flag((), "A name under which the server is reached, like pictures.example.org.")
    allow_origin: tuple[str, ...] = flag((), "A web page that may call the server, like https://example.org.")
    outputs: str = flag("outputs", "The folder for finished pictures; the only one that is served.")
    embeddings: str = flag("embeddings", "The folder of learned tokens.")
    state: str = flag(".diffusekit", "The folder for the list of jobs.")
    queue: int = flag(32, "How many jobs may wait; one more is told to come back.", ge=1, le=10_000)
    no_ui: bool = flag(False, "Only the APIs, no web page.")
    no_api: bool = flag(
        False,
        "Only the page: no A1111, OpenAI or job routes, and nothing for gradio_client.",
    )
    mcp: bool = flag(False, "Also a tool for assistants at /mcp (Model Context Protocol); needs diffusekit[mcp].")
    max_prompt: int = flag(4000, "Characters a prompt may have.", ge=1, le=MAX_PROMPT)
    max_pixels: int = flag(4_194_304, "Pixels a picture may have.", ge=64)
    max_steps: int = flag(150, "Denoising steps a picture may take.", ge=1, le=1000)
    max_images: int = flag(16, "Pictures one request may ask for.", ge=1, le=10_000)
    max_training_steps: int = flag(5000, "Training steps a learned token may take.", ge=20, le=1_000_000)
    device: str = flag("auto", "auto, cpu, cuda, cuda:1, mps or xpu.")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = flag("auto", "Precision of the networks.")

    @field_validator("allow_host", "allow_origin", mode="before")
    @classmethod
    def _listed(cls, names: Any) -> Any:
        return _several(names)

    @field_validator("no_api")
    @classmethod
    def _something_is_left(cls, no_api: bool, info: ValidationInfo) -> bool:
        if no_api and info.data.get("no_ui"):
            raise ValueError("and no_ui together leave nothing to serve")
        return no_api

    @field_validator("mcp")
    @classmethod
    def _is_an_api(cls, mcp: bool, info: ValidationInfo) -> bool:
        if mcp and info.data.get("no_api"):
            raise ValueError("is an API, and no_api leaves those out")
        return mcp


def _several(names: Any) -> Any:
    """A list written as one string, as in an environment variable: `my_cat, my_dog`."""
    return [n.strip() for n in names.split(",") if n.strip()] if isinstance(names, str) else names


def _is_yes(value: Any) -> bool:
    """Whether a value means true, as a flag, in a file or in an environment variable."""
    try:
        return TypeAdapter(bool).validate_python(value)
    except ValidationError:
        return False


S = TypeVar("S", bound=Settings)


def validate(model: type[S], values: Mapping[str, Any], source: str = "") -> S:
    """Make settings of plain values, or raise a `UsageError` that names the field and what it takes."""
    unknown = [name for name in values if name not in model.model_fields]
    if unknown:
        near = difflib.get_close_matches(unknown[0], model.model_fields, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"the settings are {', '.join(model.model_fields)}"
        raise UsageError(f"there is no setting {unknown[0]!r}{source}", hint)
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name, got = str(first["loc"][0]), repr(first.get("input"))
        says = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        got = got if len(got) < 60 else f"{got[:50]}… ({len(got)} characters)"
        raise UsageError(f"{name} {says}, got {got}{source}", model.model_fields[name].description or "") from None


def resolve(model: type[S], verb: str, given: Mapping[str, Any]) -> S:
    """Settings from all layers: `given` (flags) over `DIFFUSEKIT_*` over ./diffusekit.toml over the
    user's config folder over defaults. `None` in `given` means not given."""
    values: dict[str, Any] = {}
    for path in config_files():
        layer = _read_toml(path, verb)
        validate(model, layer, f" in {path}")
        values |= layer
    environment = _environment(model)
    validate(model, environment, " in the environment (DIFFUSEKIT_*)")
    values |= environment | {name: value for name, value in given.items() if value is not None}
    return validate(model, values)


def read_recipe(model: type[Settings], path: Path) -> dict[str, Any]:
    """The keys of a recipe: a TOML file without tables. Raises `UsageError` for what it does not take."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "give a recipe's path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}", "training/object.toml shows how") from None
    validate(model, values, f" in {path}")
    return values


def config_files() -> list[Path]:
    """The settings files that exist, the strongest last."""
    import platformdirs

    places = (platformdirs.user_config_path("diffusekit") / "config.toml", Path("diffusekit.toml"))
    return [path for path in places if path.is_file()]


def _read_toml(path: Path, verb: str) -> dict[str, Any]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}", f"write for example:\n[{verb}]\nsteps = 30") from None
    strays = [name for name, value in tables.items() if not isinstance(value, dict)]
    if strays:
        raise UsageError(f"{path}: {strays[0]!r} stands outside a table", f"put it below a line [{verb}]")
    return tables.get(verb, {})


def _environment(model: type[Settings]) -> dict[str, str]:
    """Settings by `DIFFUSEKIT_…`; but a `DIFFUSEKIT_TOKEN` is a server's key, and no name for what is learned."""
    other = ("prompt",) if model is ServeSettings else ("prompt", "token")
    named = {f"DIFFUSEKIT_{name.upper()}": name for name in model.model_fields if name not in other}
    return {named[key]: value for key, value in os.environ.items() if key in named}
