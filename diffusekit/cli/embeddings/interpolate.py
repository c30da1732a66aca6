"""`diffusekit embeddings interpolate`: move a learned token back towards its initial words."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import FileRefused
from ...workspace import Workspace
from .options import ModelName, Name, Overwrite, check_name

if TYPE_CHECKING:
    from ...embeddings import LearnedToken


def command(
    name: Name,
    amount: Annotated[
        float, typer.Argument(metavar="AMOUNT", help="From 0, its initial words, to 1, what was learned.")
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="Name of the new token.")],
    model: ModelName = None,
    overwrite: Overwrite = False,
) -> None:
    """Make a token that lies between another and its initial words.

    It is easier to edit by a prompt than what was learned.
    """
    from ...embeddings import interpolate, load_token, save

    output = output.removesuffix(".safetensors")
    check_name(output)
    token = load_token(name)
    between = interpolate(token, _initial_vectors(token, model), amount)
    metadata = {k: v for k, v in between.metadata.items() if k != "word"} | _word(output, token, model)
    between = replace(between, name=output, token=f"<{output}>", metadata=metadata)
    print(save(between, Workspace().embeddings / f"{output}.safetensors", overwrite=overwrite))


def _word(name: str, token: "LearnedToken", model: str | None) -> dict[str, str]:
    """Return the metadata that marks a name which is a word of the token's model, if that model is available."""
    from ...embeddings import Vocabulary, check_compatible
    from ...models import load

    base = load(model or "mini")
    try:
        check_compatible(token, base)
    except FileRefused:
        return {}
    return Vocabulary(base).word_metadata(name)


def _initial_vectors(token: "LearnedToken", model: str | None) -> Any:
    """Return the vectors that training started from: those in the file, or the rows of the initial words."""
    from ...embeddings import check_compatible, decode_vectors, make_vocabularies
    from ...models import load

    for key in ("start_vectors", "start"):
        try:
            return decode_vectors(token.metadata.get(key, ""), token.vectors)
        except FileRefused:  # `start` may also be the name of a method: "word", "output"
            pass
    words = token.metadata.get("init", "")
    if not words:
        hint = "learn it again: diffusekit invert FOLDER --init WORD"
        raise FileRefused(f"{token.name} does not say what it was learned from", hint)
    base = load(model or "mini")
    check_compatible(token, base)
    rows = [vocabulary.vectors(words) for vocabulary in make_vocabularies(base)]
    return tuple(r.repeat(-(-token.count // len(r)), 1)[: token.count] for r in rows)
