"""The learned tokens of the server: looked at, brought in, handed out, put away and taken back, combined.

What is removed lies in a hidden folder beside the tokens until somebody clears it. Knows no page.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from ... import embeddings
from ...embeddings import LearnedToken, Vocabulary
from ...embeddings.names import name_of
from ...errors import DiffusekitError, DiskError, FileRefused, UsageError
from . import trash

TRASH = trash.FOLDER
NEAREST_WORDS = 5
FAMILIES = {256: "mini", 768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x"}


@dataclass(frozen=True)
class TokenSummary:
    """A token in the table. `fault` says why a file is no token; then the rest is empty.

    `percentile` says how many percent of the model's words are no longer than its longest vector; it and
    `near` are there when it fits the model.
    """

    name: str
    token: str = ""
    vectors: int = 0
    base: str = ""
    percentile: float | None = None
    nearest: tuple[str, ...] = ()
    scores: tuple[tuple[str, float], ...] = ()
    error: str = ""


def list_tokens(folder: Path, vocabulary: Vocabulary | None) -> Iterator[TokenSummary]:
    """All tokens by name, and files that are none; without a `vocabulary` nothing is said of words."""
    for path in embeddings.list_files(folder):
        try:
            yield summarize(embeddings.read(path), vocabulary)
        except DiffusekitError as error:
            yield TokenSummary(name_of(path.stem), error=error.message)


def summarize(token: LearnedToken, vocabulary: Vocabulary | None) -> TokenSummary:
    width = token.width[0]
    percentile, near = None, ()
    if vocabulary is not None and len(token.vectors) == 1 and width == vocabulary.width:
        percentile = max(vocabulary.percentile(token.vectors[0].norm(dim=1)))
        near = tuple(word for word, _ in vocabulary.nearest(token.vectors[0], NEAREST_WORDS)[0])
    base = token.metadata.get("base_model") or FAMILIES.get(width, f"width {width}")
    return TokenSummary(token.name, token.token, token.count, base, percentile, near, read_scores(token))


def read_scores(token: LearnedToken) -> tuple[tuple[str, float], ...]:
    """What its file says of how good it is; strangers' files say anything."""
    try:
        found = json.loads(token.metadata.get("scores", "{}"))
    except (ValueError, RecursionError):
        return ()
    if not isinstance(found, dict):
        return ()
    return tuple(
        (str(name)[:40], float(value)) for name, value in list(found.items())[:8] if isinstance(value, (int, float))
    )


def import_token(folder: Path, path: Path, name: str, token: str) -> LearnedToken:
    """Keep a file of any program as a token; what asks for more than tensors is refused.

    `name` and `token` replace what the file says. Raises `FileRefused`, `UsageError`, `DiskError`.
    """
    if name and (fault := embeddings.name_error(name)):
        raise UsageError(f"the name {name[:60]!r} {fault}", f"for example {embeddings.safe_name(name)}")
    if token and (fault := embeddings.token_error(token)):
        raise UsageError(f"the token {token[:60]!r} {fault}", "choose a word like S*")
    try:
        found = embeddings.import_pickle(path, token)
    except FileRefused as error:  # names the file, not where the server put it
        raise FileRefused(error.message.replace(str(path), path.name), error.hint) from None
    own = name or embeddings.safe_name(path.stem)
    found = replace(found, name=own, metadata=found.metadata | {"imported_sha256": found.sha256})
    embeddings.check(found)
    return add_token(folder, found)


def add_token(folder: Path, token: LearnedToken) -> LearnedToken:
    """Write a new token; raises `UsageError` when its name is taken."""
    path = folder / f"{token.name}.safetensors"
    if path.exists():
        raise UsageError(f"there is a token {token.name} already", "choose another name")
    return embeddings.read(embeddings.save(token, path))


def export_token(folder: Path, name: str, kind: str, target: Path) -> Path:
    """A file of a token for another program, below `target`; a ZIP where that program wants two."""
    token = embeddings.load_token(check_exists(folder, name), folder)
    inside = target / secrets.token_hex(8)
    inside.mkdir(parents=True)
    made = embeddings.export_token(token, inside, kind)
    if len(made) == 1:
        return made[0]
    both = inside / f"{token.name}-{kind}.zip"
    with zipfile.ZipFile(both, "w") as archive:
        for path in made:
            archive.write(path, path.name)
    return both


def combine(
    folder: Path, vocabulary: Vocabulary, expression: str, count: int = 8
) -> tuple[list[tuple[str, float]], LearnedToken]:
    """The words nearest to a sum of words and tokens, and the sum as a token that is not kept yet."""
    if len(expression) > 300:
        raise UsageError("the sum is longer than 300 characters", "use fewer words")
    tokens = embeddings.tokens_in_prompts([expression], (), folder, setting="")
    for token in tokens:
        if token.width != (vocabulary.width,):
            raise UsageError(f"{token.name} is for another model", "leave it out")
    vector = embeddings.combine(vocabulary, expression, tokens)
    (near,) = vocabulary.nearest(vector[None], count, leave_out=expression.split())
    name = embeddings.safe_name(expression)[:40].strip("_.-") or "sum"
    return near, LearnedToken(name, f"<{name}>", (vector[None],), {"sum": expression})


def remove(folder: Path, name: str) -> str:
    """Move a token, and the folder of its training, out of sight; returns what `take_back` needs."""
    name = check_exists(folder, name)
    stamp = str(time.time_ns())
    inside = folder / TRASH / stamp
    paths = [p for p in embeddings.list_files(folder) if name_of(p.stem) == name]
    run = folder / name
    if run.is_dir() and not run.is_symlink():
        paths.append(run)
    for path in paths:
        _move(path, inside / path.name)
    return f"{stamp}/{name}"


def remove_run(folder: Path, name: str) -> None:
    """Move the folder of a run that has no token yet out of sight; nothing happens when there is none.

    Raises `UsageError` for a name that is none, and while a process learns in the folder.
    """
    if fault := embeddings.name_error(name):
        raise UsageError(f"the name {name[:60]!r} {fault}", "choose a run")
    run = folder / name
    if run.is_symlink() or not run.is_dir():
        return
    try:
        with FileLock(run / ".lock", timeout=0):
            pass
    except Timeout:
        raise UsageError(f"a process learns {name} at this moment", "stop it first") from None
    _move(run, folder / TRASH / str(time.time_ns()) / name)


def restore(folder: Path, kept: str) -> str:
    """Put back what `remove` moved away; returns its name."""
    stamp, _, name = kept.partition("/")
    inside = folder / TRASH / stamp
    if not re.fullmatch(r"\d{10,25}", stamp) or not inside.is_dir():
        raise UsageError("this token is not among the removed ones", f"look into {TRASH}")
    paths = list(inside.iterdir())
    for path in paths:
        if (folder / path.name).exists():
            raise UsageError(f"there is a token {name} again", f"the other one stays in {TRASH}")
    for path in paths:
        _move(path, folder / path.name)
    inside.rmdir()
    return name


def check_exists(folder: Path, name: str) -> str:
    """The name, when a file or a run of it is there; raises `UsageError`."""
    there = {name_of(path.stem) for path in embeddings.list_files(folder)}
    run = folder / name if not embeddings.name_error(name) else None
    if name not in there and not (run and (run / "log.jsonl").is_file()):
        raise UsageError(f"there is no token {name[:60]!r}", "it may have been removed")
    return name


def _move(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, target)
    except OSError as error:
        raise DiskError(f"cannot move {source.name}: {error.strerror or error}", "may you write there?") from None
