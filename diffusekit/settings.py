"""Settings: one frozen, validated model per verb.

The same fields make the flags of the command line, the TOML keys, the environment variables, the fields of the
HTTP API and the record inside an image. Where their values come from is decided in `config`. Imports no torch.
"""

import difflib
from collections.abc import Mapping
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
from .lora_request import LoraRequests
from .schedule import SAMPLERS
from .setting_fields import Attention, Memory, attention_flag, flag, memory_flag

MAX_PROMPT = 20_000
MAX_SEED = 2**63
MAX_UPLOAD = 32 * 2**20  # bytes of one uploaded file, or of a request that carries images
FAST_DEFAULTS: dict[str, Any] = {"steps": 4, "guidance_scale": 1.0, "sampler": "ddim"}


def flags_of(model: type[BaseModel], name: str) -> list[str]:
    """Return the spellings of a setting on the command line, the main one first."""
    extra = model.model_fields[name].json_schema_extra
    declared: Any = extra.get("flags") if isinstance(extra, dict) else None
    return declared or [f"--{name.replace('_', '-')}"]


class Settings(BaseModel):
    """Base of all settings: frozen, and unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSettings(Settings):
    """What the verbs that load a model say about loading it, besides its name, device and precision."""

    vae: str | None = flag(
        None,
        "A VAE in place of the model's own: a .safetensors file or a folder, also of TAESD, or a hub id. "
        "Default: the model's own.",
    )
    prediction_type: Literal["epsilon", "v_prediction", "sample"] | None = flag(
        None,
        "What the U-Net predicts, where a file does not say it or says it wrong: epsilon, v_prediction or sample. "
        "Default: what the model's files say.",
    )


class GenerateSettings(ModelSettings):
    """Everything that determines an image. `None` means the model's own default, or a random seed."""

    prompt: str = Field("", description="What the image shows.", max_length=MAX_PROMPT)
    negative_prompt: str = flag("", "What the image should not show.", "--negative", max_length=MAX_PROMPT)
    prompt_syntax: Literal["plain", "a1111"] = flag(
        "plain",
        "How prompts are read: plain, or a1111, with (weights:1.2), [from:to:when], [a|b], BREAK and AND.",
    )
    model: str = flag(
        "mini",
        "The embedded model mini, a one-file checkpoint (.safetensors), a folder in diffusers layout, or a Hugging "
        "Face id like owner/name.",
    )
    strength: float | None = flag(
        None,
        "How much a start image changes, from 0 (little) to 1 (everything). Default: 0.6, and 1 where a mask is white.",
        gt=0,
        le=1,
        allow_inf_nan=False,
    )
    invert_mask: bool = flag(False, "Paint where the mask is black, and keep where it is white.")
    mask_blur: float = flag(
        0.0,
        "Soft edges of the mask: the standard deviation of a Gaussian blur, in pixels of the start image.",
        ge=0,
        le=256,
        allow_inf_nan=False,
    )
    mask_padding: int | None = flag(
        None,
        "Draw only the masked area, with this many pixels around it, at the full size that the model takes. "
        "Default: draw the whole image.",
        ge=0,
        le=8192,
    )
    mask_content: Literal["original", "fill", "noise", "nothing"] = flag(
        "original",
        "What the masked area starts from, at a strength below 1: original, fill (the colors around it), noise or "
        "nothing (gray).",
    )
    steps: int | None = flag(
        None, "Denoising steps. Default: 20, or the few that the model was distilled for.", ge=1, le=1000
    )
    guidance_scale: float | None = flag(
        None,
        "Classifier-free guidance scale; 0 and 1 turn guidance off. Default: 3 for mini, 5 for SDXL, 7.5 for other "
        "models, and that of its kind for a model of few steps.",
        "--guidance",
        ge=0,
        le=100,
        allow_inf_nan=False,
    )
    guidance_rescale: float = flag(0.0, "Rescaling of guidance, 0 to 1: 0.7 for zero terminal SNR.", ge=0, le=1)
    sampler: str | None = flag(
        None,
        f"Sampling algorithm: {', '.join(SAMPLERS)}. Default: dpm++_2m, or that of its kind for a model of few steps.",
    )
    spacing: Literal["leading", "linspace", "trailing"] | None = flag(
        None,
        "How timesteps are spread: leading, linspace or trailing. Default: as the model's scheduler says; trailing for "
        "most models of few steps.",
    )
    fast: bool = flag(
        False,
        "Use the model's few-step LoRA, if it has one (mini does). Changes the defaults to 4 steps, no guidance "
        "and the sampler ddim.",
    )
    no_safety_checker: bool = flag(
        False,
        "Do not run the safety checker that a model brings. It is recorded in the image.",
    )
    seed: int | None = flag(
        None,
        "The same seed gives the same image; image i uses seed + i. Default, and -1: random.",
        ge=0,
        lt=MAX_SEED,
    )
    images: int = flag(1, "Images per prompt.", "--images", "-n", ge=1, le=10_000)
    width: int | None = flag(None, "Width in pixels. Default: the model's native width.", ge=8, le=8192)
    height: int | None = flag(None, "Height in pixels. Default: the model's native height.", ge=8, le=8192)
    batch: int | None = flag(
        None, "Batch size. Default: 4 on a GPU, 8 on a CPU for small models, else 1.", ge=1, le=1024
    )
    embedding: tuple[str, ...] = flag(
        (), "A learned token: its name in ./embeddings, or a path. Can be given several times."
    )
    lora: LoraRequests = flag((), "A LoRA and its strength, like ink:0.8, by name or path. Can be given several times.")
    device: str = flag("auto", "Device: auto, cpu, cuda, cuda:1, mps or xpu.")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = flag(
        "auto", "Precision of the networks: auto, float32, float16 or bfloat16."
    )
    attention: Attention = attention_flag()
    memory: Memory = memory_flag()

    @model_validator(mode="before")
    @classmethod
    def _apply_fast(cls, values: Any) -> Any:
        """Let `fast` change the defaults of other fields."""
        if isinstance(values, dict) and _is_true(values.get("fast")):
            return FAST_DEFAULTS | {name: value for name, value in values.items() if value is not None}
        return values

    @field_validator("seed", mode="before")
    @classmethod
    def _accept_random(cls, seed: Any) -> Any:
        """Read -1 as a random seed, as A1111 does."""
        return None if str(seed).strip() == "-1" else seed

    @field_validator("embedding", "lora", mode="before")
    @classmethod
    def _split(cls, names: Any) -> Any:
        return _split_commas(names)

    @field_validator("sampler")
    @classmethod
    def _check_sampler(cls, name: str | None) -> str | None:
        if name is not None and name not in SAMPLERS:
            near = difflib.get_close_matches(name, SAMPLERS, 1)
            raise ValueError(f"should be the name of a sampler{f' (did you mean {near[0]}?)' if near else ''}")
        return name


class InvertSettings(ModelSettings):
    """Everything that determines a learned token (textual inversion, Gal et al., 2022)."""

    pictures: str = Field("", description="Folder with three to five images of one object or style.")
    token: str = flag("S*", "The new token: the word for it in prompts.", min_length=1, max_length=60)
    name: str | None = flag(None, "File name of the learned token. Default: the name of the image folder.")
    init: str | None = flag(
        None,
        "Initial words, like cat, or a learned token to go on from: its name in the output folder or ./embeddings, "
        "or a path. Default: the last word of the folder's name that the model knows.",
    )
    start: Literal["word", "output"] = flag(
        "word",
        "Initial vectors: the words' rows of the token table (word), or the text encoder's output for them "
        "(output: Cross-Initialization, Pang et al., 2023).",
    )
    property: Literal["object", "style"] = flag(
        "object", "What is learned: object or style. Selects the caption templates."
    )
    captions: Literal["auto", "templates", "files", "both"] = flag(
        "auto",
        "Where captions come from: the .txt or .caption file of each image, or the paper's templates where there is "
        "none (auto); only templates; only files; or both.",
    )
    vectors: int = flag(1, "Number of vectors of the token.", ge=1, le=75)
    steps: int = flag(600, "Maximum number of training steps.", ge=1, le=1_000_000)
    learning_rate: float | None = flag(
        None,
        "Learning rate. Default: a third of the token table's typical entry (0.005 for Stable Diffusion 1.x).",
        gt=0,
        allow_inf_nan=False,
    )
    batch: int = flag(4, "Batch size per step, over all devices together.", ge=1, le=1024)
    norm_bound: float = flag(
        1.0,
        "Maximum vector norm, in multiples of the token table's median norm; 0: no limit.",
        ge=0,
        allow_inf_nan=False,
    )
    pull: float = flag(
        0.0,
        "L2 penalty towards the initial vectors; 0: none.",
        ge=0,
        allow_inf_nan=False,
    )
    crops: int = flag(1, "Square crops per image; 1: the center only.", ge=1, le=64)
    flip: bool = flag(False, "Also train on mirrored images; not for asymmetric objects.")
    alpha_mask: bool = flag(False, "Compute the loss only where images are not transparent.")
    model: str = flag("mini", "The base model: mini, a .safetensors file, a folder, or a Hugging Face id.")
    preview: str | None = flag(
        None, "Prompt of the validation images. Default: a picture of the token.", max_length=1000
    )
    preview_every: int | None = flag(
        None,
        "Steps between validations; 0: only at the end. Default: 120 at batch 4, and only at the end of runs "
        "shorter than five times that, so that validation takes at most a fifth of a run.",
        ge=0,
    )
    preview_images: int | None = flag(
        None,
        "Validation images of the token alone; as many edit prompts, at most 4, are drawn too. "
        "Default: 4, fewer in short runs.",
        ge=1,
        le=16,
    )
    preview_size: int | None = flag(
        None,
        "Width and height of validation images, in pixels. Default: the model's native size.",
        ge=8,
        le=8192,
    )
    patience: int = flag(
        3, "Early-stopping patience, in validations without a better score; 0: never stop early.", ge=0
    )
    clip: str = flag(
        "openai/clip-vit-large-patch14",
        "CLIP model that scores validation images, if the base model has none and this one is in the cache.",
    )
    checkpoint_every: int = flag(50, "Steps between checkpoints.", ge=1)
    seed: int = flag(0, "The same seed gives the same token.", ge=0, lt=MAX_SEED)
    deterministic: bool = flag(
        True,
        "Use deterministic algorithms, so that the same run gives the same token bit for bit. "
        "Needs the same number of threads, processor and version of PyTorch. Costs nothing measurable on a CPU.",
        "--deterministic/--no-deterministic",
    )
    trackers: tuple[str, ...] = flag(
        (), "Also log to tensorboard, wandb or trackio, if installed. Can be given several times.", "--tracker"
    )
    device: str = flag("auto", "Device: auto, cpu, cuda, cuda:1, mps or xpu.")
    dtype: Literal["auto", "float32", "bfloat16"] = flag(
        "auto", "Precision of the frozen networks: auto, float32 or bfloat16. The vectors are always float32."
    )
    attention: Attention = attention_flag()

    @field_validator("norm_bound")
    @classmethod
    def _check_norm_bound(cls, bound: float) -> float:
        if 0 < bound < 0.001:
            raise ValueError("should be 0 or at least 0.001, because shorter vectors are zeros")
        return bound

    @field_validator("trackers", mode="before")
    @classmethod
    def _split(cls, names: Any) -> Any:
        return _split_commas(names)

    @field_validator("trackers")
    @classmethod
    def _check_trackers(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(names) - {"tensorboard", "wandb", "trackio"}:
            raise ValueError(f"should be tensorboard, wandb or trackio, not {', '.join(sorted(unknown))}")
        return names


class ServeSettings(ModelSettings):
    """Where the server listens, who may use it, and the limits of one request."""

    host: str = flag("127.0.0.1", "Address to listen on; a non-loopback address requires `auth` or `token`.")
    port: int = flag(7860, "Port to listen on; 0: any free port.", ge=0, le=65_535)
    model: str = flag("mini", "Default model of requests: mini, a .safetensors file, a folder, or a Hugging Face id.")
    auth: str | None = flag(None, "USER:PASSWORD that clients must send. Prefer the variable DIFFUSEKIT_AUTH.")
    token: str | None = flag(None, "Bearer token that clients must send. Prefer the variable DIFFUSEKIT_TOKEN.")
    allow_host: tuple[str, ...] = flag(
        (), "Host name of the server, like images.example.org. Can be given several times."
    )
    allow_origin: tuple[str, ...] = flag(
        (), "Origin of a web page that may call the server, like https://example.org. Can be given several times."
    )
    root_path: str = flag("", "Path of the server behind a reverse proxy, like /images.")
    trusted_proxy: tuple[str, ...] = flag(
        ("127.0.0.1", "::1"),
        "Address or network of a reverse proxy whose X-Forwarded headers count. Can be given several times.",
    )
    outputs: str = flag("outputs", "Folder for generated images, the only folder whose files are served.")
    embeddings: str = flag("embeddings", "Folder of learned tokens.")
    loras: str = flag("loras", "Folder of LoRA files that requests may name.")
    state: str = flag(".diffusekit", "Folder for the job database.")
    queue: int = flag(32, "Maximum number of queued jobs; further requests get HTTP 429.", ge=1, le=10_000)
    no_ui: bool = flag(False, "Serve only the APIs, not the web page.")
    no_api: bool = flag(
        False,
        "Serve only the web page: no A1111, OpenAI or job routes, and no API for gradio_client.",
    )
    mcp: bool = flag(False, "Also serve a tool for assistants at /mcp (Model Context Protocol); needs diffusekit[mcp].")
    max_prompt: int = flag(4000, "Maximum length of a prompt, in characters.", ge=1, le=MAX_PROMPT)
    max_pixels: int = flag(4_194_304, "Maximum size of an image, in pixels.", ge=64)
    max_steps: int = flag(150, "Maximum denoising steps of an image.", ge=1, le=1000)
    max_images: int = flag(16, "Maximum number of images of one request.", ge=1, le=10_000)
    no_safety_checker: bool = flag(
        False, "Do not run the safety checkers that models bring. Requests cannot turn them off."
    )
    max_training_steps: int = flag(5000, "Maximum training steps of a learned token.", ge=20, le=1_000_000)
    device: str = flag("auto", "Device: auto, cpu, cuda, cuda:1, mps or xpu.")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = flag(
        "auto", "Precision of the networks: auto, float32, float16 or bfloat16."
    )
    attention: Attention = attention_flag()
    memory: Memory = memory_flag()

    @field_validator("allow_host", "allow_origin", "trusted_proxy", mode="before")
    @classmethod
    def _split(cls, names: Any) -> Any:
        return _split_commas(names)

    @field_validator("no_api")
    @classmethod
    def _check_no_api(cls, no_api: bool, info: ValidationInfo) -> bool:
        if no_api and info.data.get("no_ui"):
            raise ValueError("and `no_ui` together leave nothing to serve")
        return no_api

    @field_validator("mcp")
    @classmethod
    def _check_mcp(cls, mcp: bool, info: ValidationInfo) -> bool:
        if mcp and info.data.get("no_api"):
            raise ValueError("needs the APIs, but `no_api` turns them off")
        return mcp


def _split_commas(names: Any) -> Any:
    """Split a list that is written as one string, as in an environment variable: `my_cat, my_dog`."""
    return [n.strip() for n in names.split(",") if n.strip()] if isinstance(names, str) else names


def _is_true(value: Any) -> bool:
    """Return whether a value means true: a boolean, or text as in an environment variable."""
    try:
        return TypeAdapter(bool).validate_python(value)
    except ValidationError:
        return False


S = TypeVar("S", bound=Settings)


def validate(model: type[S], values: Mapping[str, Any], source: str = "") -> S:
    """Build settings from plain values. Raises `UsageError`, which names the field, the value and what is allowed.

    `source` is added to the message: " in diffusekit.toml".
    """
    unknown = [name for name in values if name not in model.model_fields]
    if unknown:
        near = difflib.get_close_matches(unknown[0], model.model_fields, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"the settings are {', '.join(model.model_fields)}"
        raise UsageError(f"unknown setting {unknown[0]!r}{source}", hint)
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        field, got = str(first["loc"][0]), repr(first.get("input"))
        expected = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        if first["type"] == "string_unicode":
            expected = "should be UTF-8 text"
        got = got if len(got) < 60 else f"{got[:50]}… ({len(got)} characters)"
        name = field if source else f"`{field}`"  # in a file or the environment it is not a flag
        raise UsageError(f"{name} {expected}, got {got}{source}", model.model_fields[field].description or "") from None
