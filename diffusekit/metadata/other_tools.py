"""The programs whose metadata can be read, and which of them wrote an image.

One module knows one program. Its function takes the texts of an image by key and returns a `Reading`, or None for the
texts of another program. The input is untrusted, so no function raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from . import comfyui, draw_things, easy_diffusion, fooocus, infotext, invokeai, novelai, swarmui
from .parameters import Reading

Read = Callable[[Mapping[str, str]], Reading | None]


@dataclass(frozen=True)
class Program:
    """A program, the keys of the texts that it writes (the main one first), and the function that reads them."""

    name: str
    keys: tuple[str, ...]
    read: Read


PROGRAMS = (
    Program("A1111", ("parameters",), infotext.read),
    Program("SwarmUI", ("parameters",), swarmui.read),
    Program("Fooocus", ("parameters",), fooocus.read),
    Program("Draw Things", ("parameters",), draw_things.read),
    Program("ComfyUI", ("prompt", "workflow", "parameters"), comfyui.read),
    Program("InvokeAI", ("invokeai_metadata", "sd-metadata", "Dream"), invokeai.read),
    Program("NovelAI", ("Comment", "UserComment"), novelai.read),
    Program("Easy Diffusion", ("parameters", "prompt", "Prompt"), easy_diffusion.read),
)
PROGRAM_NAMES = ", ".join(("diffusekit", *(program.name for program in PROGRAMS)))


def read_texts(texts: Mapping[str, str], comments: Sequence[str]) -> tuple[Reading, str] | None:
    """Read the texts of an image by key. Returns what they say and the text that says it; None if nothing does.

    `comments` are the texts that may be A1111's `parameters`, the likeliest first.
    """
    for program in PROGRAMS:
        tries: list[tuple[str, Mapping[str, str]]] = []
        tries += [(texts[key], texts) for key in program.keys if key in texts and key != "parameters"][:1]
        if "parameters" in program.keys:
            tries += [(text, {**texts, "parameters": text}) for text in comments]
        for text, given in tries:
            if found := program.read(given):
                return found, text
    return None
