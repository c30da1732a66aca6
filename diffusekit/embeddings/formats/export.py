"""Learned tokens as other programs want them. Reads nothing; `embeddings/README.md` lists who takes what."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import torch

from ...errors import UsageError
from ..lookup import ENDINGS
from ..token import LearnedToken, check
from .native import container, put

EXPORT_FORMATS = ("diffusers", "a1111", "kohya", "invokeai")
_PAIR = ("clip_l", "clip_g")
_STAR = 265  # the id of "*" in CLIP's vocabulary, which A1111 writes and nobody reads


def export_token(token: LearnedToken, path: Path | str, format: str, *, overwrite: bool = False) -> list[Path]:
    """Write a token for another program, all files or none, and return their paths.

    `path` is a file, or a folder (it is one, or has no file's ending) for files of the usual names.
    diffusers: safetensors keyed by the token, for SDXL two of them, the second ending in `_2`.
    a1111: its .pt. kohya, invokeai: safetensors with `emb_params` (SDXL: `clip_l`, `clip_g`).
    Raises `UsageError` for an unknown kind, a wrong ending or a taken path, `DiskError`.
    """
    check(token)
    if format not in EXPORT_FORMATS:
        raise UsageError(f"there is no kind {format!r} of file", f"kinds: {', '.join(EXPORT_FORMATS)}")
    ending = ".pt" if format == "a1111" else ".safetensors"
    path = Path(path)
    if path.is_dir() or path.suffix.lower() not in ENDINGS:  # "v1.5" is a name, no ending
        path = path / f"{'learned_embeds' if format == 'diffusers' else token.name}{ending}"
    if path.suffix != ending:
        raise UsageError(f"{path.name!r} does not end in {ending}, as files for {format} do", "change its ending")
    metadata = token.metadata | {"format": "pt", "token": token.token}
    if format == "a1111":
        files = {path: _a1111(token, metadata)}
    elif format == "diffusers":
        seconds = [path, path.with_stem(f"{path.stem}_2")]
        files = {
            place: container((token.token,), (vectors,), metadata)
            for place, vectors in zip(seconds, token.vectors, strict=False)
        }
    else:
        keys = ("emb_params",) if len(token.vectors) == 1 else _PAIR
        files = {path: container(keys, token.vectors, metadata)}
    return put(files, overwrite=overwrite)


def _a1111(token: LearnedToken, metadata: dict[str, str]) -> bytes:
    """A1111's dictionary, with what we know of the token under a key of ours, as torch.save has it."""
    vectors = [v.detach().float().cpu().clone() for v in token.vectors]
    steps = token.metadata.get("steps", "")
    found = {
        "string_to_token": {"*": _STAR},
        "string_to_param": {"*": vectors[0]},
        "name": token.token,
        "step": int(steps) if steps.isdecimal() else None,
        "sd_checkpoint": None,
        "sd_checkpoint_name": token.metadata.get("base_model"),
        "diffusekit": metadata,
    }
    file = BytesIO()
    torch.save(found if len(vectors) == 1 else dict(zip(_PAIR, vectors, strict=True)), file)
    return file.getvalue()
