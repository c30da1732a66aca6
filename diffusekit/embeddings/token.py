"""A learned token: a name, what it answers to, and one row of vectors per text encoder.

Knows no files; says what is wrong with a token, alone and beside a model.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..display import quote
from ..errors import FileRefused
from .names import name_error, spellings, token_error

if TYPE_CHECKING:
    from ..models import TextModel

MAX_VECTORS = 75
MAX_VALUE = 65504.0  # the most that float16 holds
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_FAMILIES = {
    (256,): "mini",
    (768,): "Stable Diffusion 1.x",
    (1024,): "Stable Diffusion 2.x",
    (768, 1280): "SDXL",
    (1280,): "SDXL's second text encoder alone",
}


@dataclass(frozen=True, eq=False)
class LearnedToken:
    """A token of textual inversion (Gal et al. 2022, arXiv:2208.01618).

    `vectors`: float32 (n, D) on the CPU, one tensor per text encoder (SDXL: CLIP-L, then CLIP-G).
    `facts`: what the file's metadata says: base_model, init, steps, seed, scores (JSON), ...; `word` is
    the name where the model knows it as a word.
    """

    name: str
    token: str
    vectors: tuple[torch.Tensor, ...] = field(repr=False)
    metadata: dict[str, str] = field(default_factory=dict)
    path: Path | None = None
    sha256: str = ""

    @property
    def count(self) -> int:
        """How many vectors, and so how many positions in a prompt, the token takes."""
        return self.vectors[0].shape[0]

    @property
    def width(self) -> tuple[int, ...]:
        return tuple(v.shape[-1] for v in self.vectors)

    @property
    def spellings(self) -> tuple[str, ...]:
        """What it answers to in a prompt: token, <name>, and the name alone unless it is a word."""
        return spellings(self.token, self.name, self.metadata.get("word", ""))


def check(token: LearnedToken) -> None:
    """Raise `FileRefused`, saying what was got and wanted, unless the token can be used safely."""
    what = str(token.path) if token.path else f"the token {quote(token.name)}"
    if fault := name_error(token.name):
        raise FileRefused(f"the name {quote(token.name)} {fault}", "give it another name")
    if fault := token_error(token.token):
        raise FileRefused(
            f"{what}: its token {quote(token.token)} {fault}",
            "give it another: diffusekit embeddings import FILE --token WORD",
        )
    if len(token.vectors) not in (1, 2):
        raise FileRefused(
            f"{what} is for {len(token.vectors)} text encoders, models have one or two",
            "use another copy of it",
        )
    for vectors in token.vectors:
        if fault := _fault(vectors):
            raise FileRefused(f"{what} {fault}", "use another copy of it, or learn it again")
    counts = [v.shape[0] for v in token.vectors]
    if len(set(counts)) > 1:
        raise FileRefused(
            f"{what} has {counts[0]} vectors for one text encoder and {counts[1]} for the other, "
            "the same number is wanted",
            "use another copy of it",
        )


def _fault(vectors: torch.Tensor) -> str:
    """What is wrong with the vectors of one text encoder; "" if nothing is."""
    if vectors.dtype not in FLOATS:
        kind = str(vectors.dtype).removeprefix("torch.")
        return f"holds {kind} numbers, where float32, float16 or bfloat16 are wanted"
    if vectors.ndim != 2:
        return f"has the shape {list(vectors.shape)}, where [vectors, width] is wanted"
    count, width = vectors.shape
    if not 1 <= count <= MAX_VECTORS:
        return f"has {count:,} vectors, where 1 to {MAX_VECTORS} are wanted"
    if width < 1:
        return "has vectors of width 0"
    if not vectors.isfinite().all():
        bad = int((~vectors.isfinite()).sum())
        return f"holds {bad:,} values that are NaN or infinite, where finite ones are wanted"
    if not vectors.any():
        return "holds nothing but zeros, where learned vectors are wanted"
    if (largest := float(vectors.abs().max())) > MAX_VALUE:
        return f"holds values up to {largest:.1e}, where at most {MAX_VALUE:,.0f} are wanted"
    return ""


def check_compatible(token: LearnedToken, model: TextModel) -> None:
    """Raise `FileRefused` unless the token was learned for text encoders as wide as the model's."""
    wanted = model.widths
    if token.width == wanted:
        return
    base = token.metadata.get("base_model", "")
    raise FileRefused(
        f"{token.name} was learned for {_described(token.width)}; {model.name}'s is {_wide(wanted)}",
        f"use it with {quote(base)}, where it was learned"
        if base
        else "use a model of the family it was learned for, or learn it again for this one",
    )


def _wide(width: tuple[int, ...]) -> str:
    return " and ".join(str(w) for w in width)


def _described(width: tuple[int, ...]) -> str:
    family = _FAMILIES.get(width)
    return f"width {_wide(width)}, that of {family}" if family else f"width {_wide(width)}"


def encode_vectors(vectors: tuple[torch.Tensor, ...]) -> str:
    """Vectors as text for `facts["start"]`: base64 of little-endian float32, encoders by comma."""
    raw = (v.detach().float().cpu().contiguous().numpy().astype("<f4").tobytes() for v in vectors)
    return ",".join(base64.b64encode(r).decode("ascii") for r in raw)


def decode_vectors(text: str, like: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The inverse of `pack`, in the shapes of `like`; raises `FileRefused` when they differ."""
    try:
        raw = [base64.b64decode(part, validate=True) for part in text.split(",")]
    except (binascii.Error, ValueError):
        raw = []
    if [len(r) for r in raw] != [v.numel() * 4 for v in like]:
        raise FileRefused("its fact 'start' is not the vectors it was learned from", "learn it again")
    found = [torch.frombuffer(bytearray(r), dtype=torch.float32) for r in raw]
    vectors = tuple(f.reshape(v.shape) for f, v in zip(found, like, strict=True))
    if not all(v.isfinite().all() for v in vectors):
        raise FileRefused("its fact 'start' holds values that are not finite", "learn it again")
    return vectors
