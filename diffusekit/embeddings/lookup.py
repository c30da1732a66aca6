"""The tokens that lie in a folder, and those that a prompt asks for. Knows no models and no token ids."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from ..errors import FileRefused, UsageError
from ..workspace import Workspace
from .formats.native import PICKLES, TokenHeader, read, read_header
from .names import name_of
from .token import LearnedToken

ENDINGS = (".safetensors", ".png", *PICKLES)


class _Spelled(Protocol):
    @property
    def spellings(self) -> tuple[str, ...]: ...


T = TypeVar("T", bound=_Spelled)


def list_files(folder: Path | str | None = None) -> list[Path]:
    """List the .safetensors files directly in `folder`, by name. Links that lead out of it are skipped.

    Without a `folder`, here and below, it is `embeddings` in the current directory.
    """
    folder = Path(folder or Workspace().embeddings)
    if not folder.is_dir():
        return []
    inside = folder.resolve()
    return sorted(
        path
        for path in folder.glob("*.safetensors")
        if not path.name.startswith(".")
        and path.is_file()
        and (not path.is_symlink() or path.resolve().is_relative_to(inside))
    )


def load_token(name_or_path: str | Path, folder: Path | str | None = None) -> LearnedToken:
    """Read a token by its name in the folder (`my_cat` or `<my_cat>`), or by the path of its file.

    Raises `UsageError` with near matches when there is none, `FileRefused` when it is no good.
    """
    return read(path_of(name_or_path, folder))


def path_of(name_or_path: str | Path, folder: Path | str | None = None) -> Path:
    """The file that `find` would read, unopened; raises `UsageError` with near matches."""
    folder, text = Path(folder or Workspace().embeddings), str(name_or_path)
    name = text.removeprefix("<").removesuffix(">")
    known = list_files(folder)
    named = [path for path in known if name_of(path.stem) == name]
    if len(named) > 1:
        raise UsageError(
            f"{name} is the name of {named[0].name!r} and {named[1].name!r} in {folder}",
            "rename one of them, or give its path",
        )
    if named:
        return named[0]
    if isinstance(name_or_path, Path) or "/" in text or "\\" in text or text.endswith(ENDINGS):
        try:
            for place in (Path(text), folder / text):
                if place.exists():
                    return place
        except (OSError, ValueError):  # too long, or with characters no path has
            pass
    names = [name_of(path.stem) for path in known]
    near = difflib.get_close_matches(name, names, 3, 0.5)
    some = ", ".join(names[:8]) or "none; learn one with diffusekit invert"
    raise UsageError(
        f"there is no learned token {text[:200]!r} in {folder}",
        f"did you mean {' or '.join(near)}?" if near else f"there are: {some}",
    )


def tokens_in_prompts(
    prompts: Sequence[str],
    given: Sequence[LearnedToken | str | Path] = (),
    folder: Path | str | None = None,
    *,
    setting: str = "--embedding",
) -> list[LearnedToken]:
    """The tokens that prompts need: all `given` ones first, then those of the folder they name.

    Of files that no prompt names, only the header is read. Raises `UsageError` when a prompt uses a
    spelling of several tokens, unless exactly one of them is given; `FileRefused` for a bad file.
    `flag` is the option by which a token can be given, "" where there is none.
    """
    tokens: list[LearnedToken] = []
    for each in given:
        token = each if isinstance(each, LearnedToken) else load_token(each, folder)
        if token.path is None or token.path.resolve() not in _places(tokens):
            tokens.append(token)
    taken = _places(tokens)
    others = [_glance(path) for path in list_files(folder) if path.resolve() not in taken]
    claims: dict[str, list[LearnedToken | TokenHeader]] = {}
    for claimant in (*tokens, *others):
        for spelling in claimant.spellings:
            claims.setdefault(spelling, []).append(claimant)
    needed = set()
    for prompt in prompts:
        for start, end, _ in find_mentions(prompt, [*tokens, *others]):
            chosen = _choose(prompt[start:end], claims[prompt[start:end]], setting)
            if isinstance(chosen, TokenHeader):
                needed.add(chosen.path)
    return tokens + [read(other.path) for other in others if other.path in needed]


def _places(tokens: Sequence[LearnedToken]) -> set[Path]:
    return {token.path.resolve() for token in tokens if token.path}


def _glance(path: Path) -> TokenHeader:
    """Name and token of a file; of one that is no good the name alone, in case a prompt asks for it."""
    try:
        return read_header(path)
    except FileRefused:
        return TokenHeader(name_of(path.stem), f"<{name_of(path.stem)}>", path)


def _choose(spelling: str, claimants: list[LearnedToken | TokenHeader], flag: str) -> LearnedToken | TokenHeader:
    given = [c for c in claimants if isinstance(c, LearnedToken)]
    if len(claimants) == 1 or len(given) == 1:
        return (given or claimants)[0]
    names = [c.name for c in (given or claimants)]
    named = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) < 5 else f"{len(names)} files"
    hint = f"write <{names[0]}> in the prompt" if flag else f"write for example <{names[0]}>"
    if len(set(names)) < len(names):
        hint = "rename one of the files"
    raise UsageError(
        f"{spelling} is the token of {named}",
        hint if given or not flag else f"say {flag} {names[0]}, or {hint}",
    )


def find_mentions(prompt: str, tokens: Sequence[T]) -> list[tuple[int, int, T]]:
    """(start, end, token) of all places where a prompt spells a token, from left to right.

    The longest spelling wins, the first of several tokens with one spelling. Where a spelling begins
    or ends in a letter, digit or underscore, the prompt must not go on with another: `bad` is not in
    `bad_hands`, but `S*` is in "S*'s".
    """
    owners: dict[str, T] = {}
    for token in tokens:
        for spelling in token.spellings:
            owners.setdefault(spelling, token)
    if not owners:
        return []
    ordered = sorted(owners, key=len, reverse=True)
    pattern = re.compile("|".join(bounded(spelling) for spelling in ordered))
    return [(m.start(), m.end(), owners[m[0]]) for m in pattern.finditer(prompt)]


def bounded(spelling: str) -> str:
    """The pattern of a spelling where it stands alone."""
    before = r"(?<!\w)" if re.match(r"\w", spelling[0]) else ""
    after = r"(?!\w)" if re.match(r"\w", spelling[-1]) else ""
    return before + re.escape(spelling) + after
