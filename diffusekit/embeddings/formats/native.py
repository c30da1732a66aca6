"""Read a learned token of any layout, and write the native one. Never opens a pickle.

Native: one safetensors key, the token itself, float32 (n, D); with two text encoders `clip_l` and
`clip_g`. What is known of the token stands in the metadata.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from ... import atomic
from ...display import format_size
from ...errors import DiffusekitError, DiskError, FileRefused, UsageError
from ..names import name_error, name_of, spellings
from ..token import LearnedToken, check
from . import header, layouts, png

MAX_BYTES = 16 * 2**20
PICKLES = (".pt", ".bin", ".ckpt", ".pth", ".pkl", ".pti")
# metadata that say how the file is to be read, or what its vectors say themselves; the rest are facts
_OWN = ("format", "token", "vectors", "width")


@dataclass(frozen=True)
class TokenHeader:
    """What a file says of a token before any tensor is read."""

    name: str
    token: str
    path: Path
    word: str = ""  # the name, where its model knows it as a word

    @property
    def spellings(self) -> tuple[str, ...]:
        return spellings(self.token, self.name, self.word)


def read(path: Path | str) -> LearnedToken:
    """Read a token from .safetensors in any layout, or from an A1111 picture.

    diffusers' pair for SDXL, learned_embeds.safetensors and learned_embeds_2.safetensors, is read as
    one. Raises `FileRefused` for pickles (they are imported, not read) and for whatever is unsafe,
    damaged, or not one token.
    """
    path = Path(path)
    data = contents(path)
    if path.suffix.lower() in PICKLES or is_pickle(data):
        raise FileRefused(
            f"{path} is a pickle, which can run code when it is opened",
            f"diffusekit embeddings import {path}",
        )
    return parse_whole(path, data)


def parse_whole(path: Path, data: bytes, token: str = "") -> LearnedToken:
    """`parse`, with the second file where diffusers writes two."""
    found = parse(path, data, token)
    second = path.with_name("learned_embeds_2.safetensors")
    if path.name == "learned_embeds.safetensors" and second.is_file():
        return _joined(found, data, second, token)
    return found


def is_pickle(data: bytes) -> bool:
    """Whether the bytes begin like a pickle, or like the zip that torch puts pickles in."""
    if data[:2] == b"PK":
        return True
    # a safetensors header of 128 or 640 bytes begins alike, but its length goes on with zeros
    return len(data) > 1 and data[0] == 0x80 and data[1] <= 5 and data[3:8] != bytes(5)


def contents(path: Path, first: int | None = None) -> bytes:
    """The bytes of an ordinary file, only the `first` ones if given.

    Raises `FileRefused` for folders, devices, pipes, and what is missing or larger than 16 MiB.
    """
    return _open(path, first)[0]


def _open(path: Path, first: int | None = None) -> tuple[bytes, int]:
    """(bytes, size of the whole file)."""
    try:
        # not blocking: opening a pipe nobody writes to would wait for ever
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise FileRefused(f"{path} is not an ordinary file", "give the path of a file")
            if found.st_size > MAX_BYTES:
                raise FileRefused(
                    f"{path} has {format_size(found.st_size)}; a learned token has at most {format_size(MAX_BYTES)}",
                    "is this a whole model, or a LoRA?",
                )
            return file.read(MAX_BYTES if first is None else first), found.st_size
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileRefused(f"cannot open {path}: {reason}", "give the path of a file") from None


def parse(path: Path, data: bytes, token: str = "") -> LearnedToken:
    """The token in the bytes of a safetensors file or a picture; `token` replaces what it says."""
    try:
        if data.startswith(png.MAGIC):
            tensors, metadata = png.extract(data)
        else:
            metadata = header_of(data, len(data)).metadata
            tensors = load(data)
        return assemble(path, data, tensors, metadata | ({"token": token} if token else {}))
    except FileRefused as error:
        raise named(path, error) from None


def assemble(path: Path, data: bytes, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> LearnedToken:
    """A checked token of tensors and metadata, whichever kind of file (`data`) they came from."""
    layout = layouts.identify(tensors, metadata, path.stem)
    named = layout.token if path.stem == "learned_embeds" else path.stem
    token = LearnedToken(
        name=name_of(named),
        token=layout.token,
        vectors=layouts.vectors_of(tensors, layout),
        metadata={key: value for key, value in metadata.items() if key not in _OWN},
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
    )
    check(token)
    return token


def header_of(data: bytes, size: int) -> header.Header:
    """The checked header in the first bytes of a file of `size` bytes."""
    number = header.length(data, size)
    return header.parse(data[8 : 8 + number], size)


def load(data: bytes) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise FileRefused(f"cannot be read: {error}", "use another copy of it") from None


def named(path: Path, error: FileRefused) -> FileRefused:
    """The same refusal, saying of which file."""
    if str(path) in error.message:
        return error
    return FileRefused(f"{path} {error.message}", error.hint)


def _joined(first: LearnedToken, data: bytes, path: Path, token: str) -> LearnedToken:
    """diffusers' two files for SDXL as one token; the hash is that of both, one after the other."""
    more = contents(path)
    second = parse(path, more, token)
    if len(first.vectors) > 1 or first.token != second.token:
        raise FileRefused(f"{first.path} and {path} are not the halves of one token", "move one of them away")
    joined = replace(
        first,
        vectors=first.vectors + second.vectors,
        sha256=hashlib.sha256(data + more).hexdigest(),
    )
    check(joined)
    return joined


def read_header(path: Path) -> TokenHeader:
    """Name and token of a safetensors file, from its header alone; raises `FileRefused`."""
    first, size = _open(path, 8)
    number = header.length(first, size)
    start, _ = _open(path, 8 + number)
    found = header.parse(start[8:], size)
    layout = layouts.identify(found.tensors, found.metadata, path.stem)
    return TokenHeader(name_of(path.stem), layout.token, path, found.metadata.get("word", ""))


def native(token: LearnedToken) -> bytes:
    """The token as the bytes of a native file; equal tokens give equal bytes."""
    keys = (token.token,) if len(token.vectors) == 1 else ("clip_l", "clip_g")
    told = {"vectors": str(token.count), "width": "+".join(map(str, token.width))}
    metadata = token.metadata | told | {"format": "pt", "token": token.token}
    return container(keys, token.vectors, metadata)


def container(keys: tuple[str, ...], vectors: tuple[torch.Tensor, ...], metadata: dict[str, str]) -> bytes:
    """A safetensors file of named vectors, as float32."""
    tensors = {
        key: (tuple(v.shape), v.detach().float().cpu().contiguous().numpy().astype("<f4").tobytes())
        for key, v in zip(keys, vectors, strict=True)
    }
    return header.build(tensors, metadata)


def save(token: LearnedToken, path: Path | str, *, overwrite: bool = False) -> Path:
    """Write a token in the native format: beside its place, re-opened, compared, renamed.

    Raises `FileRefused` for a token that does not pass `check`, `UsageError` for a path that is taken
    or unsafe, `DiskError` when it cannot be written; then what was there before is untouched.
    """
    path = Path(path)
    check(token)
    if path.suffix != ".safetensors":
        raise UsageError(f"{path.name!r} does not end in .safetensors", "choose such a name")
    if fault := name_error(path.stem):
        raise UsageError(f"the name {path.stem!r} {fault}", "choose another name")
    return put({path: native(token)}, overwrite=overwrite, check=partial(_same, token))[0]


def put(files: dict[Path, bytes], *, overwrite: bool, check: Callable[[Path], object] | None = None) -> list[Path]:
    """Put files in their places, all or none; raises `UsageError` when one is there already."""
    for path in files:
        if (path.exists() or path.is_symlink()) and not overwrite:
            raise UsageError(f"{path} already exists", "use another name, or set `overwrite`")
    before: dict[Path, bytes | None] = {}
    try:
        for path, data in files.items():
            old = path.read_bytes() if path.is_file() else None
            atomic.write_atomic(path, data, check)
            before[path] = old
    except DiffusekitError:
        for path, old in before.items():
            if old is None:
                path.unlink(missing_ok=True)
            else:
                atomic.write_atomic(path, old)
        raise
    return list(files)


def _same(token: LearnedToken, path: Path) -> None:
    """Whether a file just written holds the token, read the way strangers' files are read."""
    again = parse(path.with_name("written.safetensors"), path.read_bytes())
    same = again.token == token.token and again.metadata == {
        key: value for key, value in token.metadata.items() if key not in _OWN
    }
    vectors = zip(again.vectors, token.vectors, strict=True)
    if not same or not all(torch.equal(a, b.detach().float().cpu()) for a, b in vectors):
        raise DiskError(f"{path} does not hold what was written to it", "is the disk in order?")
