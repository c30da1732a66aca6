"""Say what a file or folder is that was given as a model and is none, and what to do with it."""

from __future__ import annotations

import json
import re
import stat
import zipfile
from collections.abc import Collection, Iterable
from pathlib import Path
from urllib.parse import urlsplit

from ..display import quote
from ..errors import ModelError
from .headers import TensorHeader, read_header, read_start, unreadable
from .original_layout import ENDINGS, is_checkpoint

LAYOUT = "a folder in diffusers layout holds model_index.json, unet/, vae/, text_encoder/ and tokenizer/"
_ONE_FILE = "give a checkpoint in one .safetensors file, a folder in diffusers layout, or a hub id like owner/name"
_ENDINGS = (".safetensors", ".ckpt", ".gguf", ".pt", ".pth", ".bin", ".sft")
_CHECKPOINT_FOLDERS = ("models/Stable-diffusion", "models/checkpoints", "Stable-diffusion", "checkpoints")
_LORA = re.compile(r"lora_|\.lora|lokr_|hada_|oft_|\.dora_scale")
LORA_HINT = "give it with `lora`, and a model with `model`"
_LIMIT = 200  # folders that are looked into
_SMALL = 2**20  # bytes; learned tokens are smaller, models are larger
# The first bytes of files that are no weights at all.
_MAGIC = (
    (b"GGUF", "quantized weights in GGUF"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"RIFF", "an image or a sound"),
    (b"GIF8", "an image"),
    (b"\x1f\x8b", "an archive"),
    (b"7z\xbc\xaf", "an archive"),
    (b"Rar!", "an archive"),
    (b"\x89HDF", "weights in HDF5"),
)


def refuse(name: str, path: Path) -> ModelError | None:
    """Return the error for a file, an address or a folder that is not a model; None if nothing is there.

    Reads names, headers and the first bytes, never weights. A folder with a model_index.json and a one-file
    checkpoint are not refused here.
    """
    if re.match(r"(?i)[a-z][a-z0-9+.-]+://|(www\.)?(huggingface\.co|hf\.co|civitai\.com)/", name):
        return _refuse_address(name)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        is_link = "\0" not in name and path.is_symlink()
        return ModelError(f"{path} is a link to something that does not exist", "mend the link") if is_link else None
    except OSError as error:
        return unreadable(path, error)
    if stat.S_ISDIR(mode):
        return _refuse_folder(path)
    if not stat.S_ISREG(mode):
        return ModelError(f"{path} is a device or a pipe, not a model", _ONE_FILE)
    try:
        if path.suffix.lower() in ENDINGS and read_start(path, 1) and is_checkpoint(read_header(path).tensors):
            return None
        what, hint = identify_file(path)
    except ModelError as error:  # the file is damaged, empty or cannot be read
        return error
    return ModelError(f"{path} is {what}, expected a model", hint)


# --- files -----------------------------------------------------------------------------------


def identify_file(path: Path) -> tuple[str, str]:
    """Return what a file is, and a hint; raises `ModelError` for a damaged file."""
    folder = next((above for above in path.absolute().parents[:2] if (above / "model_index.json").is_file()), None)
    if folder is not None:
        return "one file of a model", f"give its folder: {folder}"
    start = read_start(path, 4096)
    if not start:
        return "an empty file", "fetch it again"
    suffix = path.suffix.lower()
    if suffix in ENDINGS:
        return _describe_tensors(read_header(path))
    for magic, kind in _MAGIC:
        if start.startswith(magic):
            return kind, _ONE_FILE
    is_small = path.stat().st_size < _SMALL
    if zipfile.is_zipfile(path):
        return _describe_zip(path, is_small=is_small)
    if start[:1] == b"\x80" or suffix in (".ckpt", ".pt", ".pth", ".bin"):
        return _describe_pickle(start, is_small=is_small)
    if suffix == ".onnx":
        return "a network in ONNX", _ONE_FILE
    if suffix == ".json" or start.lstrip().startswith((b"{", b"[")):
        return "a JSON file", LAYOUT
    is_text = b"\0" not in start
    return ("a text file" if is_text else f"a file of an unknown kind ({quote(path.suffix or path.name)})"), _ONE_FILE


def _describe_tensors(header: TensorHeader) -> tuple[str, str]:
    """Say what the keys of a safetensors file belong to."""
    names = header.tensors
    if any(_LORA.search(name) for name in names):
        return "a LoRA, which changes a model and is not one", LORA_HINT
    if any(name.startswith(("control_model.", "controlnet_")) for name in names):
        return "a ControlNet, which steers a model and is not one", _ONE_FILE
    if is_checkpoint(names):
        return "a one-file checkpoint", _ONE_FILE
    if _is_token(header):
        return "a learned token, not a model", "give it as `embedding`, and name the token in the prompt"
    for part, keys in (
        ("a U-Net alone", ("input_blocks.", "down_blocks.", "conv_in.")),
        ("a VAE alone", ("first_stage_model.", "encoder.down", "decoder.up")),
        ("a text encoder alone", ("text_model.", "cond_stage_model.", "encoder.block.", "transformer.")),
    ):
        if any(name.startswith(keys) for name in names):
            return f"{part}, not a whole model", "give the folder of a whole model in diffusers layout"
    some = ", ".join(quote(name, 40) for name in sorted(names)[:2])
    return f"a safetensors file of an unknown kind ({len(names)} tensors{': ' if some else ''}{some})", _ONE_FILE


def _is_token(header: TensorHeader) -> bool:
    shapes = [shape for _, shape in header.tensors.values()]
    known = {"emb_params", "clip_l", "clip_g", "text_encoders_0", "text_encoders_1"} & set(header.tensors)
    is_small = 0 < len(shapes) <= 4 and all(1 <= len(shape) <= 2 and shape[-1] <= 8192 for shape in shapes)
    return is_small and (bool(known) or all(len(shape) == 1 or shape[0] <= 128 for shape in shapes))


def _describe_zip(path: Path, *, is_small: bool) -> tuple[str, str]:
    """Tell a file of `torch.save` from other archives, by its list of names and the text in its pickle."""
    try:
        with zipfile.ZipFile(path) as archive:
            inner = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
            if inner is not None:
                with archive.open(inner) as file:
                    return _describe_pickle(file.read(2**20), is_small=is_small)
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        return f"a damaged archive ({quote(str(error))})", "fetch it again"
    return "an archive", "unpack it and give the folder that holds model_index.json"


def _describe_pickle(data: bytes, *, is_small: bool) -> tuple[str, str]:
    """Look for words in a pickle, without opening it."""
    danger = "a pickle, which can run code when it is opened"
    if b"string_to_param" in data:
        return f"a learned token in {danger}", "convert it: diffusekit embeddings import FILE"
    if b"lora_" in data:
        return f"a LoRA in {danger}", LORA_HINT
    if is_small:
        return danger, "if it is a learned token, convert it: diffusekit embeddings import FILE"
    what = f"a one-file checkpoint in {danger}" if b"diffusion_model." in data else danger
    return what, "convert it to safetensors: diffusekit models import FILE"


# --- folders and addresses -------------------------------------------------------------------


def _refuse_folder(path: Path) -> ModelError | None:
    try:
        names = sorted(inside.name for inside in path.iterdir())
        if (path / "model_index.json").exists():
            return None
    except OSError as error:
        return unreadable(path, error)
    what, hint = _describe_folder(path.absolute(), names)
    return ModelError(f"{path} is not a model in diffusers layout (no readable model_index.json): {what}", hint)


def _describe_folder(path: Path, names: Collection[str]) -> tuple[str, str]:
    """Return what a folder without model_index.json is, and a hint."""
    if not names:
        return "it is empty", LAYOUT
    if (path.parent / "model_index.json").is_file():
        return "it is one part of a model", f"give the folder above it: {path.parent}"
    if path.name.startswith("models--") and "snapshots" in names:
        return "it is a model of the hub's cache", f"give its id: {'/'.join(path.name.split('--')[1:])}"
    if cached := [name for name in names if name.startswith("models--")]:
        return "it is the hub's cache", f"give the id of a model, like {'/'.join(cached[0].split('--')[1:])}"
    if "adapter_config.json" in names or "pytorch_lora_weights.safetensors" in names:
        return "it is a LoRA, which changes a model and is not one", LORA_HINT
    for inside in _CHECKPOINT_FOLDERS:
        if files := _checkpoints(path / inside):
            return (
                f"it is the folder of A1111, Forge or ComfyUI, whose {inside}/ holds {_list(files)}",
                f"give one: {path / inside / files[0]}",
            )
    if models := [name for name in list(names)[:_LIMIT] if (path / name / "model_index.json").is_file()]:
        return f"it holds {len(models)} of them", f"give one: {path / models[0]}"
    if files := _checkpoints(path):
        error = refuse(str(path / files[0]), path / files[0]) if len(files) == 1 else None
        kind = f" ({error.message.partition(' is ')[2].partition(', expected')[0]})" if error else ""
        return f"it holds {_list(files)}{kind}", error.hint if error else f"give one: {path / files[0]}"
    if "unet" in names or "vae" in names:
        return "it has parts of a model", "fetch the whole model again"
    if "config.json" in names:
        return f"it is one network ({_class_of(path / 'config.json')})", "give the folder of a whole model"
    return f"it holds {_list(list(names))}", LAYOUT


def _class_of(config: Path) -> str:
    try:
        content = json.loads(read_start(config, 2**20))
        return quote(str(content.get("_class_name") or (content.get("architectures") or ["of an unknown class"])[0]))
    except (ModelError, ValueError, AttributeError, IndexError, TypeError):
        return "of an unknown class"


def _checkpoints(folder: Path) -> list[str]:
    try:
        return sorted(file.name for file in folder.iterdir() if file.name.lower().endswith(_ENDINGS))
    except OSError:
        return []


def _list(names: Iterable[str]) -> str:
    names = list(names)
    return f"{', '.join(quote(name, 40) for name in names[:3])}{', …' if len(names) > 3 else ''}"


def _refuse_address(name: str) -> ModelError:
    parts = urlsplit(name if "://" in name else f"https://{name}")
    path = [part for part in parts.path.split("/") if part]
    if (parts.hostname or "").removeprefix("www.") in ("huggingface.co", "hf.co") and len(path) >= 2:
        if path[0] in ("datasets", "spaces"):
            return ModelError(f"{quote(name, 120)} is the address of a {path[0][:-1]}, not of a model", _ONE_FILE)
        revision = f"@{path[3]}" if len(path) > 3 and path[2] in ("tree", "blob", "resolve") else ""
        model = f"{path[0]}/{path[1]}{'' if revision == '@main' else revision}"
        return ModelError(f"{quote(name, 120)} is an address, expected the id of a model", f"give its id: {model}")
    return ModelError(
        f"{quote(name, 120)} is an address, and models are fetched by id from the Hugging Face hub only", _ONE_FILE
    )
