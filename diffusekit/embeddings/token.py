"""A learned token: its name, its word in prompts, and k vectors for each text encoder.

It imports no file format. It says what is wrong with a token, by itself and for a given model.
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
from .names import name_error, name_of, spellings, token_error

if TYPE_CHECKING:
    from ..models import TextModel

MAX_VECTORS = 75
MAX_VALUE = 65504.0  # the largest number in float16
MAX_BYTES = 16 * 2**20  # of a token's file, and of one tensor in it
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
FAMILIES = {
    (256,): "mini",
    (768,): "Stable Diffusion 1.x",
    (1024,): "Stable Diffusion 2.x",
    (768, 1280): "SDXL",
    (1280,): "SDXL's second text encoder alone",
}


@dataclass(frozen=True, eq=False)
class LearnedToken:
    """A token of textual inversion (Gal et al. 2022, arXiv:2208.01618).

    `vectors`: float32 (k, D) on the CPU, one tensor for each text encoder (SDXL: CLIP-L, then CLIP-G).
    `metadata`: the file's metadata, such as base_model, init, steps, seed and scores (JSON). If it has a
    `word`, the name is a word that the model knows.
    """

    name: str
    token: str
    vectors: tuple[torch.Tensor, ...] = field(repr=False)
    metadata: dict[str, str] = field(default_factory=dict)
    path: Path | None = None
    sha256: str = ""

    @property
    def count(self) -> int:
        """The number of vectors, which is the number of positions that the token takes in a prompt."""
        return self.vectors[0].shape[0]

    @property
    def width(self) -> tuple[int, ...]:
        """The width of the vectors for each text encoder."""
        return tuple(v.shape[-1] for v in self.vectors)

    @property
    def family(self) -> str:
        """The model family with text encoders of this width, or "width 512" when none is known."""
        return FAMILIES.get(self.width, f"width {_join(self.width)}")

    @property
    def spellings(self) -> tuple[str, ...]:
        """How a prompt can mention it: by token, <name>, or the bare name unless that is a word."""
        stem = self.path.stem if self.path and name_of(self.path.stem) == self.name else ""
        return spellings(self.token, self.name, self.metadata.get("word", ""), stem)


def check(token: LearnedToken) -> None:
    """Raise `FileRefused` unless the token can be used safely. The message says what was expected."""
    subject = str(token.path) if token.path else f"the token {quote(token.name)}"
    if error := name_error(token.name):
        raise FileRefused(f"the name {quote(token.name)} {error}", "give it another `name`")
    if error := token_error(token.token):
        raise FileRefused(f"{subject}: its token {quote(token.token)} {error}", "import it with another `token`")
    if len(token.vectors) not in (1, 2):
        raise FileRefused(
            f"{subject} has vectors for {len(token.vectors)} text encoders, expected one or two",
            "use another copy of it",
        )
    for vectors in token.vectors:
        if error := _vectors_error(vectors):
            raise FileRefused(f"{subject} {error}", "use another copy of it, or train it again")
    counts = [v.shape[0] for v in token.vectors]
    if len(set(counts)) > 1:
        raise FileRefused(
            f"{subject} has {counts[0]} vectors for one text encoder and {counts[1]} for the other, "
            "expected the same number",
            "use another copy of it",
        )


def _vectors_error(vectors: torch.Tensor) -> str:
    """What is wrong with the vectors for one text encoder, or ""."""
    if vectors.dtype not in FLOATS:
        return f"has dtype {str(vectors.dtype).removeprefix('torch.')}, expected float32, float16 or bfloat16"
    if vectors.ndim != 2:
        return f"has the shape {list(vectors.shape)}, expected [vectors, width]"
    count, width = vectors.shape
    if not 1 <= count <= MAX_VECTORS:
        return f"has {count:,} vectors, expected 1 to {MAX_VECTORS}"
    if width < 1:
        return "has vectors of width 0"
    if not vectors.isfinite().all():
        return f"has {int((~vectors.isfinite()).sum()):,} values that are NaN or infinite"
    if not vectors.any():
        return "has only zeros, expected learned vectors"
    if (largest := float(vectors.abs().max())) > MAX_VALUE:
        return f"has values up to {largest:.1e}, expected at most {MAX_VALUE:,.0f}"
    return ""


def check_compatible(token: LearnedToken, model: TextModel) -> None:
    """Raise `FileRefused` unless the token's vectors are as wide as the model's text encoders."""
    if token.width == model.widths:
        return
    base = token.metadata.get("base_model", "")
    family = f"{token.family} (width {_join(token.width)})" if token.width in FAMILIES else token.family
    raise FileRefused(
        f"{token.name} was learned for {family}, but {model.name} has width {_join(model.widths)}",
        f"use it with {quote(base)}, for which it was learned"
        if base
        else "use a model of the family it was learned for, or train it again for this one",
    )


def _join(width: tuple[int, ...]) -> str:
    return " and ".join(str(w) for w in width)


def key_suffix(encoder: int) -> str:
    """Return how names end that are about one text encoder: "" for the first, "_2" for the second, as in diffusers."""
    return f"_{encoder + 1}" if encoder else ""


def encode_vectors(vectors: tuple[torch.Tensor, ...]) -> str:
    """Encode vectors as metadata text: base64 of little-endian float32, encoders separated by commas."""
    raw = (v.detach().float().cpu().contiguous().numpy().astype("<f4").tobytes() for v in vectors)
    return ",".join(base64.b64encode(r).decode("ascii") for r in raw)


def decode_vectors(text: str, like: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Decode the text of `encode_vectors` to the shapes of `like`; raises `FileRefused` when they differ."""
    try:
        raw = [base64.b64decode(part, validate=True) for part in text.split(",")]
    except (binascii.Error, ValueError):
        raw = []
    if [len(r) for r in raw] != [v.numel() * 4 for v in like]:
        raise FileRefused("its start vectors do not have the shape of its vectors", "train it again")
    flat = [torch.frombuffer(bytearray(r), dtype=torch.float32) for r in raw]
    vectors = tuple(f.reshape(v.shape) for f, v in zip(flat, like, strict=True))
    if not all(v.isfinite().all() for v in vectors):
        raise FileRefused("its start vectors have values that are NaN or infinite", "train it again")
    return vectors
