"""What is left out: tokens that no prompt names, names without a token, and files that must be imported first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..display import quote
from ..errors import FileRefused
from ..workspace import Workspace
from . import files
from .formats import ENDINGS, PICKLE_ENDINGS
from .lookup import find_mentions, list_files, spelling_pattern
from .names import find_near, name_of
from .token import LearnedToken

_IN_BRACKETS = re.compile(r"<([^<>:/\s](?:[^<>:]{0,98}[^<>:\s])?)>")


@dataclass(frozen=True)
class OmittedFile:
    """A file in the folder of tokens that is not used, and why."""

    path: Path
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.path} {self.reason}" + (f": {self.hint}" if self.hint else "")


def list_omitted(folder: Path | str | None = None) -> list[OmittedFile]:
    """List the files directly in `folder` that look like tokens but are not used, by name.

    These are other programs' files that have to be imported, and links that lead out of the folder. An image
    is listed if it has an embedding inside.
    """
    folder = Path(folder or Workspace().embeddings)
    if not folder.is_dir():
        return []
    used = {path.name for path in list_files(folder)}
    omitted = []
    for path in sorted(folder.glob("*")):
        ending = path.suffix.lower()
        if path.name in used or path.name.startswith(".") or ending not in ENDINGS or not path.is_file():
            continue
        if ending in PICKLE_ENDINGS or (ending == ".png" and _has_embedding(path)):
            omitted.append(OmittedFile(path, "has to be imported first", f"diffusekit embeddings import {path}"))
        elif ending == ".safetensors":
            omitted.append(OmittedFile(path, "is a link that leads out of the folder"))
    return omitted


def _has_embedding(path: Path) -> bool:
    try:
        files.read(path)
    except FileRefused:
        return False
    return True


def find_omissions(prompts: Sequence[str], tokens: Sequence[LearnedToken], folder: Path | str | None) -> list[str]:
    """Say in sentences what the prompts and the `tokens` they were given have no effect on each other.

    That is a token that no prompt names, a `<name>` without a token, a name in other capitals or with spaces, and
    a file that has to be imported first. Without a `folder` no files are looked at.
    """
    mentions = [find_mentions(prompt, tokens) for prompt in prompts]
    named = {id(token) for found in mentions for _, _, token in found}
    sentences = [
        f"the learned token {token.name} has no effect, because no prompt names it; write <{token.name}>"
        for token in tokens
        if id(token) not in named
    ]
    for prompt, found in zip(prompts, mentions, strict=True):
        sentences += _unread_names(_blank(prompt, [(start, end) for start, end, _ in found]), tokens, folder)
    return list(dict.fromkeys(sentences))


def _blank(prompt: str, spans: Sequence[tuple[int, int]]) -> str:
    """Replace what was read as a token, so that it is not searched again."""
    for start, end in spans:
        prompt = f"{prompt[:start]}{chr(0) * (end - start)}{prompt[end:]}"
    return prompt


def _unread_names(rest: str, tokens: Sequence[LearnedToken], folder: Path | str | None) -> Iterator[str]:
    """Yield a sentence for each name in the `rest` of a prompt that looks like a token and is plain text."""
    explained = []
    known = list_files(folder) if folder else []
    for path in known:
        for stem in dict.fromkeys((path.stem, name_of(path.stem))):
            if match := _search(stem, rest):
                explained.append(match)
                name = name_of(path.stem)
                if name in files.header_of(path).spellings:
                    yield f"{quote(match)} in the prompt is plain text; the learned token is written {name} or <{name}>"
    for omitted in list_omitted(folder) if folder else ():
        if (match := _search(omitted.path.stem, rest)) and omitted.hint:
            explained.append(match)
            yield f"{quote(match)} in the prompt is plain text, because {omitted}"
    names = [*(token.name for token in tokens), *(name_of(path.stem) for path in known)]
    for match in _IN_BRACKETS.finditer(rest):
        if match[1] not in explained:
            near = f"; did you mean <{close[0]}>?" if (close := find_near(match[1], names)) else ""
            yield f"there is no learned token {quote(match[0])}, so it is read as plain text{near}"


def _search(stem: str, rest: str) -> str:
    """Return how a prompt writes a file's name, in any capitals, or ""."""
    match = re.search(spelling_pattern(stem), rest, re.IGNORECASE)
    return match[0] if match else ""
