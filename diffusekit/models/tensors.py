"""The tensors of one network under the names of diffusers, from a folder or from a one-file checkpoint.

They are memory-mapped: a tensor takes memory only where it is used, or converted to another precision.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..display import quote
from ..errors import ModelError
from ..model_files import CLIP_VOCABULARY, ModelFile, ModelFolder
from ..model_files.headers import FETCH_AGAIN
from ..model_files.original_layout import EMA, TEXT_PREFIXES, UNET, VAE_PREFIXES
from ..model_files.vae_files import VaeFiles

if TYPE_CHECKING:
    import torch

Tensors = dict[str, "torch.Tensor"]
# Attention of VAEs that older versions of diffusers wrote.
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD = re.compile(r"\b(attentions\.\d+\.)(query|key|value|proj_attn)\.")


def read_part(files: ModelFolder | ModelFile, part: str, *, half: bool = False, ema: bool = False) -> Tensors:
    """Return the tensors of a network as it is called in diffusers layout: unet, vae, text_encoder, text_encoder_2.

    `ema` takes the averaged weights of training where a file has them. Raises `ModelError`.
    """
    if isinstance(files, ModelFolder):
        folder = files.path / part
        names = files.weights(part, half=half).names
        return rename(open_tensors(*(folder / name for name in names)), part)
    if part == "unet":
        return _unet(files, ema=ema)
    if part == "vae":
        return convert_vae(open_tensors(files.path, starts=VAE_PREFIXES), files.configs["vae"])
    return _text(files, part)


def open_tensors(*paths: Path, starts: tuple[str, ...] = ("",)) -> Tensors:
    """Open the tensors of safetensors files whose names start like one of `starts`."""
    from safetensors import safe_open

    found: Tensors = {}
    for path in paths:
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys() if name.startswith(starts)}  # noqa: SIM118
    return found


def rename(tensors: Tensors, part: str) -> Tensors:
    """Give the tensors of a network in diffusers layout the names that are in use now."""
    if part == "vae":
        found = {_OLD.sub(lambda m: f"{m[1]}{_OLD_NAMES[m[2]]}.", name): t for name, t in tensors.items()}
        return {name: t.flatten(1) if ".attentions." in name and t.ndim == 4 else t for name, t in found.items()}
    if part.startswith("text_encoder"):
        plain = {name if "text_" in name else f"text_model.{name}": t for name, t in tensors.items()}
        return {name: t for name, t in plain.items() if not name.endswith("position_ids")}
    return tensors


def convert_vae(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Convert a VAE from the original layout."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    return convert_ldm_vae_checkpoint(tensors, dict(config))


def read_vae(files: VaeFiles) -> Tensors:
    """Return the tensors of a VAE of its own."""
    tensors = open_tensors(*files.weights, starts=files.starts)
    if files.layout == "original":
        return convert_vae(tensors, files.config)
    if files.layout == "taesd":
        return _taesd(files)
    return rename(tensors, "vae")


def _unet(files: ModelFile, *, ema: bool) -> Tensors:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    if ema and not files.has_ema:
        raise ModelError(f"{files.name} has no averaged weights (EMA)", "leave out `ema`")
    tensors = open_tensors(files.path, starts=(UNET, EMA) if ema else (UNET,))
    converted = convert_ldm_unet_checkpoint(tensors, dict(files.configs["unet"]), extract_ema=ema)
    used = {id(tensor) for tensor in converted.values()}
    left = [name for name, tensor in tensors.items() if id(tensor) not in used and name.startswith(UNET)]
    if left and not ema:
        raise ModelError(
            f"the U-Net of {files.name} has tensors that its family has not: {quote(left[0])}"
            f"{f' and {len(left) - 1} more' if len(left) > 1 else ''}",
            "use its folder in diffusers layout",
        )
    return converted


def _text(files: ModelFile, part: str) -> Tensors:
    prefix = TEXT_PREFIXES[files.family.name][part]
    tensors = open_tensors(files.path, starts=(prefix,))
    if not prefix.endswith(".model."):
        return rename({name.removeprefix(prefix): tensor for name, tensor in tensors.items()}, part)
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

    network = SimpleNamespace(config=SimpleNamespace(hidden_size=files.configs[part]["hidden_size"]))
    return convert_open_clip_checkpoint(network, tensors, prefix=prefix)


def _taesd(files: VaeFiles) -> Tensors:
    """Join the encoder and the decoder of TAESD in its original layout, whose decoder begins with a layer to clamp."""
    encoder, decoder = files.weights
    found = {f"encoder.layers.{name}": tensor for name, tensor in open_tensors(encoder).items()}
    for name, tensor in open_tensors(decoder).items():
        number, _, rest = name.partition(".")
        found[f"decoder.layers.{int(number) - 1}.{rest}"] = tensor
    return found


def build(network: Any, config: Mapping[str, Any], tensors: Tensors, dtype: torch.dtype, what: str) -> Any:
    """Make a network of its configuration and its tensors in one precision; `what` names it in errors.

    Raises `ModelError` for tensors that are missing or have another shape.
    """
    from accelerate import init_empty_weights

    with init_empty_weights():
        empty = network.from_config(dict(config)) if hasattr(network, "from_config") else _make_clip(network, config)
    expected = {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items()}
    if not hasattr(empty, "text_model"):  # transformers 5 has CLIPTextModel without it
        tensors = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    check_fit(what, expected, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    state = {name: tensors[name].to(dtype) for name in expected}
    empty.load_state_dict(state, strict=True, assign=True)
    return empty.eval().requires_grad_(False)


def _make_clip(network: Any, config: Mapping[str, Any]) -> Any:
    return network(network.config_class(**{k: v for k, v in config.items() if k != "architectures"}))


def check_fit(what: str, expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> None:
    """Compare names and shapes of tensors with those that a network has; raises `ModelError`."""
    if missing := sorted(expected.keys() - given.keys()):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(f"{what} is not whole: {quote(missing[0])}{more} is missing", FETCH_AGAIN)
    for name, shape in expected.items():
        if given[name] != shape:
            raise ModelError(
                f"{what} has {quote(name)} of shape {list(given[name])}, expected {list(shape)}", FETCH_AGAIN
            )


@contextmanager
def tokenizer_folder(files: ModelFolder | ModelFile, tokenizer: str) -> Iterator[Path]:
    """Yield the folder of a tokenizer. That of a one-file checkpoint is temporary."""
    if isinstance(files, ModelFolder):
        yield files.path / tokenizer
        return
    with tempfile.TemporaryDirectory(prefix="diffusekit-") as folder:
        for name, text in tokenizer_files(files, tokenizer).items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        yield Path(folder)


def tokenizer_files(files: ModelFile, tokenizer: str) -> dict[str, str]:
    """Return the files of a tokenizer as they are on the hub, by name."""
    config = dict(files.tokenizers[tokenizer])
    special = {key: config[key] for key in ("bos_token", "eos_token", "unk_token", "pad_token")}
    texts = {name: (CLIP_VOCABULARY / name).read_text(encoding="utf-8") for name in ("vocab.json", "merges.txt")}
    return texts | {
        "tokenizer_config.json": json.dumps(config, indent=1),
        "special_tokens_map.json": json.dumps(special, indent=1),
    }


def count_bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
