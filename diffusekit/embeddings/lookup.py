"""Find learned tokens: in a folder, by name or path, and those that a prompt mentions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from .. import model_names, places
from ..errors import UsageError
from ..workspace import Workspace
from .files import TokenHeader, header_of, read
from .formats import ENDINGS, PICKLE_ENDINGS
from .names import find_near, name_of
from .token import LearnedToken


class _Mentionable(Protocol):
    @property
    def spellings(self) -> tuple[str, ...]: ...


T = TypeVar("T", bound=_Mentionable)


def list_files(folder: Path | str | None = None) -> list[Path]:
    """List the .safetensors files directly in `folder`, by name. Links that lead out of it are left out.

    Without a `folder`, here and below, it is `embeddings` in the current directory.
    """
    folder = Path(folder or Workspace().embeddings)
    if not folder.is_dir():
        return []
    inside = folder.resolve()
    return sorted(
        path
        for path in folder.glob("*")
        if path.suffix.lower() == ".safetensors"
        and not path.name.startswith(".")
        and path.is_file()
        and (not path.is_symlink() or path.resolve().is_relative_to(inside))
    )


def load_token(name_or_path: str | Path, folder: Path | str | None = None) -> LearnedToken:
    """Read a token by its name in the folder (`my_cat` or `<my_cat>`), or by the path of its file.

    Raises `UsageError` with near matches when there is none, and `FileRefused` when its file is refused.
    """
    return read(path_of(name_or_path, folder))


def path_of(name_or_path: str | Path, folder: Path | str | None = None) -> Path:
    """Return the file that `load_token` would read; raises `UsageError` with near matches when there is none."""
    folder, text = Path(folder or Workspace().embeddings), str(name_or_path)
    name = text.removeprefix("<").removesuffix(">")
    known = list_files(folder)
    matches = [path for path in known if name in (path.stem, name_of(path.stem))]
    if len(matches) > 1:
        raise UsageError(
            f"{name} is the name of {matches[0].name!r} and {matches[1].name!r} in {folder}",
            "rename one of them, or give its path",
        )
    if matches:
        return matches[0]
    if isinstance(name_or_path, Path) or "/" in text or "\\" in text or text.endswith(ENDINGS):
        try:
            for path in (Path(text), folder / text):
                if path.exists():
                    return path
        except (OSError, ValueError):  # too long, or with characters that no path has
            pass
    for path in folder.glob("*"):
        if name in (path.stem, name_of(path.stem)) and path.suffix.lower() in (*PICKLE_ENDINGS, ".png"):
            raise UsageError(f"{path} has to be imported first", f"diffusekit embeddings import {path}")
    if (elsewhere := _find_in_places(name)) is not None:
        return elsewhere
    names = [name_of(path.stem) for path in known]
    near = find_near(name, names, 3)
    available = f"available: {', '.join(names[:8])}" if names else "learn one with diffusekit invert"
    raise UsageError(
        f"no learned token {text[:200]!r} in {folder}",
        f"did you mean {' or '.join(near)}?" if near else available,
    )


def _find_in_places(name: str) -> Path | None:
    """Find a token in the folders of models: those of A1111, Forge and ComfyUI have folders of embeddings.

    Raises `UsageError` for a name of several files, and for a pickle.
    """
    found = model_names.find_file("embedding", name)
    if found is not None and found.is_pickle:
        raise UsageError(f"{found.path} has to be imported first", f"diffusekit embeddings import {found.path}")
    return found.path if found else None


def _list_mentioned(prompts: Sequence[str]) -> list[Path]:
    """The files in the folders of models that prompts mention as <name>. Bare words there are left alone."""
    names = {name for prompt in prompts for name in re.findall(r"<([^<>:]{1,100})>", prompt)}
    if not names:
        return []
    return [
        file.path
        for file in places.list_files("embedding")
        if not file.is_pickle and names & {file.stem, name_of(file.stem)}
    ]


def tokens_in_prompts(
    prompts: Sequence[str],
    given: Sequence[LearnedToken | str | Path] = (),
    folder: Path | str | None = None,
    *,
    setting: str = "embedding",
) -> list[LearnedToken]:
    """Load the tokens that prompts need: all `given` ones first, then those in the folder that they mention.

    Of other files only the header is read. Raises `UsageError` when a prompt mentions several tokens by
    one spelling, unless exactly one of them is given, and `FileRefused` for a bad file. `setting` names
    the setting with which a token is given, or is "" where there is none.
    """
    tokens: list[LearnedToken] = []
    for each in given:
        token = each if isinstance(each, LearnedToken) else load_token(each, folder)
        if token.path is None or token.path.resolve() not in _paths(tokens):
            tokens.append(token)
    loaded = _paths(tokens)
    listed = list_files(folder)
    own = {name_of(path.stem) for path in listed}  # a token of the folder hides one of its name in a program's folder
    listed += [path for path in _list_mentioned(prompts) if name_of(path.stem) not in own]
    others = [header_of(path) for path in listed if path.resolve() not in loaded]
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


def _paths(tokens: Sequence[LearnedToken]) -> set[Path]:
    return {token.path.resolve() for token in tokens if token.path}


def _choose(spelling: str, claimants: list[LearnedToken | TokenHeader], setting: str) -> LearnedToken | TokenHeader:
    """Choose one of the tokens with one spelling; raises `UsageError` when several are possible."""
    given = [c for c in claimants if isinstance(c, LearnedToken)]
    if len(claimants) == 1 or len(given) == 1:
        return (given or claimants)[0]
    names = [c.name for c in (given or claimants)]
    several = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) < 5 else f"{len(names)} files"
    hint = f"write <{names[0]}> in the prompt" if setting else f"write for example <{names[0]}>"
    if len(set(names)) < len(names):
        hint = "rename one of the files"
    raise UsageError(
        f"{spelling} is the token of {several}",
        hint if given or not setting else f"set `{setting}` to {names[0]}, or {hint}",
    )


def find_mentions(prompt: str, tokens: Sequence[T]) -> list[tuple[int, int, T]]:
    """Find the mentions (start, end, token) of tokens in a prompt, from left to right.

    The longest spelling wins, and of several tokens with one spelling the first. A spelling that starts or
    ends with a word character needs a word boundary there: `bad` is not in `bad_hands`, but `S*` is in
    "S*'s".
    """
    owners: dict[str, T] = {}
    for token in tokens:
        for spelling in token.spellings:
            owners.setdefault(spelling, token)
    if not owners:
        return []
    ordered = sorted(owners, key=len, reverse=True)
    pattern = re.compile("|".join(spelling_pattern(spelling) for spelling in ordered))
    return [(m.start(), m.end(), owners[m[0]]) for m in pattern.finditer(prompt)]


def spelling_pattern(spelling: str) -> str:
    """Return the regular expression for a spelling that is not part of a longer word."""
    before = r"(?<!\w)" if re.match(r"\w", spelling[0]) else ""
    after = r"(?!\w)" if re.match(r"\w", spelling[-1]) else ""
    return before + re.escape(spelling) + after
