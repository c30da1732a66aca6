"""The server's token store: list, import, export, combine, remove and restore learned tokens.

What is removed is in the trash beside the tokens until somebody empties it.
"""

from __future__ import annotations

import json
import secrets
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ... import embeddings
from ...embeddings import LearnedToken, Vocabulary
from ...embeddings.names import name_of
from ...errors import DiffusekitError, FileRefused, UsageError
from ...inversion.run_folder import RunFolder
from . import trash

NEAREST_WORDS = 5


@dataclass(frozen=True)
class TokenSummary:
    """What a table of tokens shows. `error` says why a file is not a token, and then the rest is empty.

    `percentile` is the share of the model's words, in percent, whose vectors are not longer than the token's longest
    vector. `nearest` are the words nearest to the first vector for each text encoder. Both are there when the token
    fits the model.
    """

    name: str
    token: str = ""
    vectors: int = 0
    base: str = ""
    percentile: float | None = None
    nearest: tuple[tuple[str, ...], ...] = ()
    scores: tuple[tuple[str, float], ...] = ()
    error: str = ""


def list_tokens(folder: Path, vocabularies: Sequence[Vocabulary] = ()) -> Iterator[TokenSummary]:
    """Yield all tokens by name, damaged files too.

    Percentile and nearest words need the `vocabularies` of a model, one for each text encoder.
    """
    for path in embeddings.list_files(folder):
        try:
            yield summarize(embeddings.read(path), vocabularies)
        except DiffusekitError as error:
            yield TokenSummary(name_of(path.stem), error=error.message)


def summarize(token: LearnedToken, vocabularies: Sequence[Vocabulary] = ()) -> TokenSummary:
    percentile, nearest = None, []
    if token.width == _widths(vocabularies):
        percentile = 0.0
        for vocabulary, vectors in zip(vocabularies, token.vectors, strict=True):
            percentile = max(percentile, *vocabulary.norm_percentile(vectors.norm(dim=1)))
            nearest.append(tuple(word for word, _ in vocabulary.nearest(vectors[:1], NEAREST_WORDS)[0]))
    base = token.metadata.get("base_model") or token.family
    return TokenSummary(token.name, token.token, token.count, base, percentile, tuple(nearest), read_scores(token))


def _widths(vocabularies: Sequence[Vocabulary]) -> tuple[int, ...]:
    return tuple(vocabulary.width for vocabulary in vocabularies)


def read_scores(token: LearnedToken) -> tuple[tuple[str, float], ...]:
    """The scores in the file of a token; the file is untrusted, so unusable values are dropped."""
    try:
        scores = json.loads(token.metadata.get("scores", "{}"))
    except (ValueError, RecursionError):
        return ()
    if not isinstance(scores, dict):
        return ()
    return tuple(
        (str(name)[:40], float(value)) for name, value in list(scores.items())[:8] if isinstance(value, (int, float))
    )


def import_token(folder: Path, path: Path, name: str, token: str) -> LearnedToken:
    """Store a file of any program as a token; a pickle that needs more than tensors is refused.

    `name` and `token` replace what the file says. Raises `FileRefused`, `UsageError`, `DiskError`.
    """
    if name and (error := embeddings.name_error(name)):
        raise UsageError(f"the name {name[:60]!r} {error}", f"for example {embeddings.safe_name(name)}")
    if token and (error := embeddings.token_error(token)):
        raise UsageError(f"the token {token[:60]!r} {error}", "choose a word like S*")
    try:
        learned = embeddings.import_token(path, token)
    except FileRefused as error:  # name the file, not the folder that the server put it in
        raise FileRefused(error.message.replace(str(path), path.name), error.hint) from None
    name = name or embeddings.safe_name(path.stem)
    learned = replace(learned, name=name, metadata=learned.metadata | {"imported_sha256": learned.sha256})
    embeddings.check(learned)
    return add_token(folder, learned)


def add_token(folder: Path, token: LearnedToken) -> LearnedToken:
    """Write a new token; raise `UsageError` when its name is taken."""
    path = folder / f"{token.name}.safetensors"
    if path.exists():
        raise UsageError(f"there is a token {token.name} already", "choose another name")
    return embeddings.read(embeddings.save(token, path))


def export_token(folder: Path, name: str, kind: str, target: Path) -> Path:
    """Write a token for another program below `target`; two files are put into a ZIP."""
    token = embeddings.load_token(check_exists(folder, name), folder)
    inside = target / secrets.token_hex(8)
    inside.mkdir(parents=True)
    paths = embeddings.export_token(token, inside, kind)
    if len(paths) == 1:
        return paths[0]
    both = inside / f"{token.name}-{kind}.zip"
    with zipfile.ZipFile(both, "w") as archive:
        for path in paths:
            archive.write(path, path.name)
    return both


def combine(
    folder: Path, vocabularies: Sequence[Vocabulary], expression: str, count: int = 8
) -> tuple[list[list[tuple[str, float]]], LearnedToken]:
    """The words nearest to a sum of words and tokens, and the sum as a token that is not stored yet.

    The words are listed for each text encoder.
    """
    if len(expression) > 300:
        raise UsageError("the sum is longer than 300 characters", "use fewer words")
    tokens = embeddings.tokens_in_prompts([expression], (), folder, setting="")
    for token in tokens:
        if token.width != _widths(vocabularies):
            raise UsageError(f"{token.name} is for another model", "leave it out")
    sums, nearest = [], []
    for encoder, vocabulary in enumerate(vocabularies):
        sums.append(embeddings.combine(vocabulary, expression, tokens, encoder)[None])
        nearest += vocabulary.nearest(sums[-1], count, exclude=expression.split())
    name = embeddings.safe_name(expression)[:40].strip("_.-") or "sum"
    return nearest, LearnedToken(name, f"<{name}>", tuple(sums), {"sum": expression})


def remove(folder: Path, name: str) -> str:
    """Move a token, and the folder of its training, to the trash; return the id that `restore` needs."""
    name = check_exists(folder, name)
    paths = [path for path in embeddings.list_files(folder) if name_of(path.stem) == name]
    run = folder / name
    if run.is_dir() and not run.is_symlink():
        paths.append(run)
    return f"{trash.put(folder, *paths)}/{name}"


def remove_run(folder: Path, name: str) -> None:
    """Move the folder of a run that has no token yet to the trash; do nothing when there is none.

    Raises `UsageError` for an invalid name, and while a process trains in the folder.
    """
    if error := embeddings.name_error(name):
        raise UsageError(f"the name {name[:60]!r} {error}", "choose a run")
    run = RunFolder(folder, name)
    if run.path.is_symlink() or not run.path.is_dir():
        return
    if run.is_locked:
        raise UsageError(f"{name} is being trained now", "stop it first")
    trash.put(folder, run.path)


def restore(folder: Path, trash_id: str) -> str:
    """Move back what `remove` moved to the trash; return the token's name."""
    stamp, _, name = trash_id.partition("/")
    inside = folder / trash.FOLDER / stamp
    if not stamp.isdigit() or not inside.is_dir():
        raise UsageError("this token is not in the trash", f"see the folder {trash.FOLDER}")
    trash.restore(folder, stamp, *(path.name for path in inside.iterdir()))
    return name


def check_exists(folder: Path, name: str) -> str:
    """Return the name if there is a file or a run of it; raise `UsageError` otherwise."""
    names = {name_of(path.stem) for path in embeddings.list_files(folder)}
    is_run = not embeddings.name_error(name) and RunFolder(folder, name).is_run
    if name not in names and not is_run:
        raise UsageError(f"unknown token {name[:60]!r}", "it may have been removed")
    return name
