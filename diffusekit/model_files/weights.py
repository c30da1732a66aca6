"""Which files hold the weights of a network: precision, shards, and names of both spellings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError
from .headers import FETCH_AGAIN, read_json, unreadable

# x.safetensors, x.fp16.safetensors, x-00001-of-00003.safetensors, x.fp16-00001-of-00003.safetensors and
# x-00001-of-00003.fp16.safetensors
_NAME = re.compile(
    r"(?P<stem>\w+?)(\.(?P<variant>[\w-]+?))?(-(?P<shard>\d{5})-of-(?P<count>\d{5}))?(\.(?P<late>\w+))?\.safetensors"
)
_FULL, _HALF = ("", "fp32", "ema"), ("fp16", "bf16", "half")
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")
CONVERT = "only safetensors are loaded, because pickles can run code; convert the model first"


@dataclass(frozen=True)
class WeightFiles:
    """The safetensors files of one network, in order. `variant` is "fp16" for x.fp16.safetensors, "" for x."""

    variant: str
    names: tuple[str, ...]

    @property
    def is_half(self) -> bool:
        """Whether the names say half precision."""
        return self.variant in _HALF


def stem_of(part: str) -> str:
    """Return how the names of the weight files of a network begin: transformers and diffusers differ."""
    return "model" if part.startswith(("text_encoder", "safety_checker")) else "diffusion_pytorch_model"


def choose_weights(names: Iterable[str], stem: str, *, half: bool) -> WeightFiles:
    """Choose one precision of a network's weights among file names.

    Full precision unless `half`; the other one when it is the only one; weights without EMA when there are no
    others. Raises `ModelError`, whose message follows the name of a folder, when no precision is whole.
    """
    names = sorted(names)
    groups: dict[tuple[str, int], dict[int, str]] = {}
    for name in names:
        if (match := _NAME.fullmatch(name)) and match["stem"] == stem:
            variant, count = match["variant"] or match["late"] or "", max(int(match["count"] or 1), 1)
            groups.setdefault((variant, count), {})[int(match["shard"] or 1)] = name
    ordered = sorted(groups, key=lambda key: (*_rank(key[0], half=half), key[1]))
    for variant, count in ordered:
        shards = groups[variant, count]
        if all(number in shards for number in range(1, count + 1)):
            return WeightFiles(variant, tuple(shards[number] for number in range(1, count + 1)))
    if not ordered:
        raise _no_weights(names, stem)
    variant, count = ordered[0]
    missing = [number for number in range(1, count + 1) if number not in groups[variant, count]]
    example = next(iter(groups[variant, count].values()))
    name = re.sub(r"\d{5}-of", f"{missing[0]:05}-of", example)
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    raise ModelError(f"has no {name}{more}: {count - len(missing)} of {count} shards are there", FETCH_AGAIN)


def find_weights(folder: Path, stem: str, *, half: bool) -> WeightFiles:
    """Choose the weights of a network in its folder, as `choose_weights` does.

    Raises `ModelError` when no precision is whole, and when an index names a file outside the folder.
    """
    try:
        names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise unreadable(folder, error) from None
    for name in names:
        if ".index." in name and name.endswith(".json") and "safetensors" in name:
            _check_index(folder / name)
    try:
        return choose_weights(names, stem, half=half)
    except ModelError as error:
        raise ModelError(f"{folder} {error.message}", error.hint) from None


def _check_index(path: Path) -> None:
    shards = read_json(path).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise ModelError(f"{path} has no readable `weight_map`", FETCH_AGAIN)
    if any(Path(shard).name != shard or "\\" in shard or ":" in shard for shard in shards.values()):
        raise ModelError(f"{path} names a file outside its folder", "do not use this model")


def _rank(variant: str, *, half: bool) -> tuple[int, int]:
    """The order of preference: the precision that is needed, the other one, unknown ones, those without EMA."""
    kinds = (_HALF, _FULL) if half else (_FULL, _HALF)
    for rank, kind in enumerate(kinds):
        if variant in kind:
            return rank, kind.index(variant)
    return (3 if "ema" in variant else 2), 0


def _no_weights(names: list[str], stem: str) -> ModelError:
    pickles = [name for name in names if name.endswith(_PICKLES)]
    others = [name for name in names if name.endswith((".safetensors", ".gguf", ".onnx", ".msgpack", ".h5"))]
    if pickles:
        return ModelError(f"holds no .safetensors weights, only {pickles[0]}", CONVERT)
    if others:
        return ModelError(f"holds no {stem}.safetensors, only {others[0]}", FETCH_AGAIN)
    return ModelError("holds no .safetensors weights", FETCH_AGAIN)
