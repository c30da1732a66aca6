"""How a LoRA is asked for: NAME, NAME:0.8, and A1111's tag <lora:NAME:0.8> in a prompt. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

MAX_STRENGTH = 100.0
_NUMBER = re.compile(r"[+-]?(?:\d{1,6}(?:\.\d{0,12})?|\.\d{1,12})")
_NAMED = re.compile(r"(\w{1,20})=(.{0,40})")
_TAG = re.compile(r"<(?:lora|lyco):([^<>]{1,400})>")
_FORM = "expected NAME, NAME:0.8, or NAME:te=0.5:unet=0.8"


@dataclass(frozen=True)
class LoraRequest:
    """A LoRA by name or path, and how strongly it changes the text encoders and the U-Net."""

    name: str
    text_encoder: float = 1.0
    unet: float = 1.0

    def __str__(self) -> str:
        if self.text_encoder == self.unet:
            return f"{self.name}:{self.unet:g}"
        return f"{self.name}:te={self.text_encoder:g}:unet={self.unet:g}"

    @property
    def tag(self) -> str:
        """The tag that A1111 reads. Its numbers are the text encoder's, then the U-Net's."""
        strengths = dict.fromkeys((f"{self.text_encoder:g}", f"{self.unet:g}"))
        return f"<lora:{self.name}:{':'.join(strengths)}>"


def parse_request(text: str) -> LoraRequest:
    """Parse `NAME`, `NAME:0.8`, `NAME:TE:UNET` or `NAME:te=0.5:unet=0.8`.

    One number is the strength of both; without one it is 1. Raises `ValueError` for anything else.
    """
    pieces = text.strip().split(":")
    count = 2 if len(pieces) > 1 and re.fullmatch(r"[A-Za-z]", pieces[0]) and pieces[1][:1] in ("\\", "/") else 1
    name, values = ":".join(pieces[:count]).strip(), [piece.strip() for piece in pieces[count:]]
    if not name:
        raise ValueError(f"has no name; {_FORM}")
    numbers: list[float] = []
    named: dict[str, float] = {}
    for value in values:
        match = _NAMED.fullmatch(value)
        if match and match[1] not in ("te", "unet"):
            raise ValueError(f"has {value!r}, which is not supported; {_FORM}")
        if match:
            named[match[1]] = _strength(match[2])
        else:
            numbers.append(_strength(value))
    if len(numbers) > 2:
        raise ValueError(f"has {len(numbers)} numbers, and a dynamic rank is not supported; {_FORM}")
    text_encoder = named.get("te", numbers[0] if numbers else 1.0)
    unet = named.get("unet", numbers[-1] if len(numbers) > 1 else text_encoder)
    return LoraRequest(name, text_encoder, unet)


def check_requests(requests: tuple[str, ...]) -> tuple[str, ...]:
    """Return the requests of a setting; raises `ValueError` for one that cannot be read."""
    for request in requests:
        try:
            parse_request(request)
        except ValueError as error:
            raise ValueError(f"should be like ink:0.8; {request[:100]!r} {error}") from None
    return requests


LoraRequests = Annotated[tuple[str, ...], AfterValidator(check_requests)]


def _strength(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"has {text[:40]!r} where a strength should be; {_FORM}")
    if abs(number := float(text)) > MAX_STRENGTH:
        raise ValueError(f"has the strength {number:g}, expected at most {MAX_STRENGTH:g}")
    return number


def find_tags(prompt: str) -> Iterator[tuple[int, int, str]]:
    """Yield the LoRA tags of a prompt: start, end, and what `parse_request` reads."""
    for match in _TAG.finditer(prompt):
        yield match.start(), match.end(), match[1]


def rename_tags(prompt: str, names: dict[str, str]) -> str:
    """Give the LoRA tags of a prompt other names, and leave everything else as it is."""

    def rename(match: re.Match[str]) -> str:
        try:
            request = parse_request(match[1])
        except ValueError:
            return match[0]
        if request.name not in names:
            return match[0]
        return LoraRequest(names[request.name], request.text_encoder, request.unet).tag

    return _TAG.sub(rename, prompt)
