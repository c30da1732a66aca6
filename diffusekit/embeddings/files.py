"""Token files: the one place that chooses a format for a file. The formats are in `formats/`.

`read` opens safe formats only. `import_token` opens pickles too, in a child process.
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

from .. import atomic
from ..display import format_size
from ..errors import DiskError, FileRefused, UsageError
from .formats import PICKLE_ENDINGS, header, layouts, native, pickle_sandbox, png
from .formats.other_kinds import hint_for, name_kind_of_file
from .names import name_error, name_of, spellings
from .token import MAX_BYTES, LearnedToken, check

Parsed = tuple[dict[str, torch.Tensor], dict[str, str]]  # tensors by key, metadata
# The first format that matches parses the file. Content decides, not the ending.
FORMATS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], Parsed]], ...] = (
    (png.matches, png.parse),
    (pickle_sandbox.matches, pickle_sandbox.parse),
    (lambda data: True, native.parse),
)
_DIFFUSERS_STEM = "learned_embeds"  # which says nothing about the token; with SDXL there is a second file


@dataclass(frozen=True)
class TokenHeader:
    """A token as its file's header describes it, without vectors."""

    name: str
    token: str
    path: Path
    word: str = ""  # the name, if its model knows it as a word

    @property
    def spellings(self) -> tuple[str, ...]:
        """How a prompt can mention it."""
        return spellings(self.token, self.name, self.word, self.path.stem)


def read(path: Path | str) -> LearnedToken:
    """Read a token from a safetensors file in any layout, or from an A1111 image.

    The two files that diffusers writes for SDXL, learned_embeds.safetensors and learned_embeds_2.safetensors,
    are read as one token. Raises `FileRefused` for a pickle, and for a file that is unsafe, damaged or not
    one token.
    """
    path = Path(path)
    data = read_bytes(path)
    if path.suffix.lower() in PICKLE_ENDINGS or pickle_sandbox.matches(data):
        raise FileRefused(
            f"{path} is a pickle, which can run code when it is opened",
            f"diffusekit embeddings import {path}",
        )
    return _read_all(path, data)


def import_token(path: Path | str, token: str = "") -> LearnedToken:
    """Read a token from a file of any format, pickles included. `token` replaces the file's own.

    Raises `FileRefused` for a file that needs anything but tensors, takes too much time or memory, or is
    not one token.
    """
    path = Path(path)
    return _read_all(path, read_bytes(path), token)


def read_header(path: Path) -> TokenHeader:
    """Read name and token of a safetensors file from its header alone; raises `FileRefused`."""
    start, size = _read_start(path, 8)
    start, _ = _read_start(path, 8 + header.length(start, size))
    parsed = header.parse(start[8:], size)
    layout = layouts.identify(parsed.tensors, parsed.metadata, path.stem)
    return TokenHeader(name_of(path.stem), layout.token, path, parsed.metadata.get("word", ""))


def header_of(path: Path) -> TokenHeader:
    """Read a file's header. A refused file keeps its name, so that a prompt that mentions it fails."""
    try:
        return read_header(path)
    except FileRefused:
        return TokenHeader(name_of(path.stem), f"<{name_of(path.stem)}>", path)


def read_bytes(path: Path) -> bytes:
    """Read a regular file; raises `FileRefused` for any other, a missing one, and one over `MAX_BYTES`."""
    return _read_start(path, MAX_BYTES)[0]


def save(token: LearnedToken, path: Path | str, *, overwrite: bool = False) -> Path:
    """Write a token in the native format, read it back and compare it before it replaces `path`.

    Raises `FileRefused` for a token that fails `check`, `UsageError` for a path that exists or is unsafe,
    and `DiskError` when writing fails. Then the old file is unchanged.
    """
    path = Path(path)
    check(token)
    if path.suffix != ".safetensors":
        raise UsageError(f"{path.name!r} does not end in .safetensors", "use a name that does")
    if error := name_error(path.stem):
        raise UsageError(f"the name {path.stem!r} {error}", "use another `name`")
    return atomic.write_all({path: native.build(token)}, overwrite=overwrite, check=partial(_compare, token))[0]


def _read_all(path: Path, data: bytes, token: str = "") -> LearnedToken:
    """Parse a file, and the second file of diffusers' pair for SDXL."""
    first = _parse(path, data, token)
    second = path.with_name(f"{_DIFFUSERS_STEM}_2.safetensors")
    if path.name == f"{_DIFFUSERS_STEM}.safetensors" and second.is_file():
        return _join(first, data, second, token)
    return first


def _parse(path: Path, data: bytes, token: str = "") -> LearnedToken:
    """Parse a file's bytes to a checked token; `FileRefused` names the file."""
    parse = next(parse for matches, parse in FORMATS if matches(data))
    try:
        tensors, metadata = parse(data)
        layout = layouts.identify(tensors, metadata | ({"token": token} if token else {}), path.stem)
        result = LearnedToken(
            name=name_of(layout.token if path.stem == _DIFFUSERS_STEM else path.stem),
            token=layout.token,
            vectors=layouts.vectors_of(tensors, layout),
            metadata={key: value for key, value in metadata.items() if key not in native.FILE_METADATA},
            path=path,
            sha256=hashlib.sha256(data).hexdigest(),
        )
        check(result)
    except FileRefused as error:
        if str(path) in error.message:
            raise
        raise FileRefused(f"{path} {error.message}", error.hint) from None
    return result


def _join(first: LearnedToken, data: bytes, path: Path, token: str) -> LearnedToken:
    """Join diffusers' two files for SDXL to one token. Its hash is that of both files in a row."""
    more = read_bytes(path)
    second = _parse(path, more, token)
    if len(first.vectors) > 1 or first.token != second.token:
        raise FileRefused(f"{first.path} and {path} are not halves of one token", "move one of them away")
    sha256 = hashlib.sha256(data + more).hexdigest()
    joined = replace(first, vectors=first.vectors + second.vectors, sha256=sha256)
    check(joined)
    return joined


def _read_start(path: Path, count: int) -> tuple[bytes, int]:
    """Read the first `count` bytes, and return them with the size of the whole file."""
    try:
        # non-blocking, because opening a pipe without a writer would wait forever
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise FileRefused(f"{path} is not a regular file", "give the path of a file")
            if status.st_size > MAX_BYTES:
                if kind := name_kind_of_file(file):
                    raise FileRefused(f"{path} is {kind}, expected a token of textual inversion", hint_for(kind))
                raise FileRefused(
                    f"{path} has {format_size(status.st_size)}, expected at most {format_size(MAX_BYTES)} for a token",
                    "is this a whole model, or a LoRA?",
                )
            return file.read(count), status.st_size
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileRefused(f"cannot open {path}: {reason}", "give the path of a file") from None


def _compare(token: LearnedToken, path: Path) -> None:
    """Raise `DiskError` unless the file just written has the token, read as an untrusted file."""
    written = _parse(path.with_name("written.safetensors"), path.read_bytes())
    metadata = {key: value for key, value in token.metadata.items() if key not in native.FILE_METADATA}
    vectors = zip(written.vectors, token.vectors, strict=True)
    if (written.token, written.metadata) != (token.token, metadata) or not all(
        torch.equal(a, b.detach().float().cpu()) for a, b in vectors
    ):
        raise DiskError(f"{path} does not have what was written to it", "check the disk")
