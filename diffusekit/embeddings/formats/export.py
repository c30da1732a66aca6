"""Exports: tokens in the formats of other programs. `embeddings/README.md` lists who reads which."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import torch

from ... import atomic
from ...errors import UsageError
from ..token import LearnedToken, check
from . import ENDINGS
from .native import PAIR, build_safetensors

EXPORT_FORMATS = ("diffusers", "a1111", "kohya", "invokeai")
_STAR_ID = 265  # the id of "*" in CLIP's vocabulary, which A1111 writes and no program reads


def export_token(token: LearnedToken, path: Path | str, format: str, *, overwrite: bool = False) -> list[Path]:
    """Write a token for another program, all files or none, and return their paths.

    A `path` that is a folder, or does not end in .safetensors or .pt, gets files of the usual names.
    diffusers: safetensors with the token as key. For SDXL there is a second file that ends in `_2`.
    a1111: its .pt. kohya and invokeai: safetensors with `emb_params` (SDXL: `clip_l` and `clip_g`).
    Raises `UsageError` for an unknown format, a wrong ending or a path that exists, and `DiskError`.
    """
    check(token)
    if format not in EXPORT_FORMATS:
        raise UsageError(f"unknown export format {format!r}", f"use one of {', '.join(EXPORT_FORMATS)}")
    ending = ".pt" if format == "a1111" else ".safetensors"
    path = Path(path)
    if path.is_dir() or path.suffix.lower() not in ENDINGS:  # "v1.5" is a folder's name, not an ending
        path = path / f"{'learned_embeds' if format == 'diffusers' else token.name}{ending}"
    if path.suffix != ending:
        raise UsageError(f"{path.name!r} does not end in {ending}, as files for {format} do", "change its ending")
    metadata = token.metadata | {"format": "pt", "token": token.token}
    if format == "a1111":
        files = {path: _build_a1111(token, metadata)}
    elif format == "diffusers":
        paths = (path, path.with_stem(f"{path.stem}_2"))
        files = {
            target: build_safetensors((token.token,), (vectors,), metadata)
            for target, vectors in zip(paths, token.vectors, strict=False)
        }
    else:
        keys = ("emb_params",) if len(token.vectors) == 1 else PAIR
        files = {path: build_safetensors(keys, token.vectors, metadata)}
    return atomic.write_all(files, overwrite=overwrite)


def _build_a1111(token: LearnedToken, metadata: dict[str, str]) -> bytes:
    """Build A1111's dictionary with torch.save, and our metadata under a key of its own."""
    vectors = [v.detach().float().cpu().clone() for v in token.vectors]
    steps = token.metadata.get("steps", "")
    content = {
        "string_to_token": {"*": _STAR_ID},
        "string_to_param": {"*": vectors[0]},
        "name": token.token,
        "step": int(steps) if steps.isdecimal() and len(steps) < 16 else None,
        "sd_checkpoint": None,
        "sd_checkpoint_name": token.metadata.get("base_model"),
        "diffusekit": metadata,
    }
    file = BytesIO()
    torch.save(content if len(vectors) == 1 else dict(zip(PAIR, vectors, strict=True)), file)
    return file.getvalue()
