"""`diffusekit embeddings combine`: add and subtract words and learned tokens."""

import json
from typing import Annotated

import typer

from ...display import printable
from .options import Json, ModelName


def command(
    expression: Annotated[str, typer.Argument(metavar="EXPRESSION", help='Like "cat - red + blue".')],
    model: ModelName = None,
    count: Annotated[int, typer.Option("--count", min=1, max=1000, help="Number of words to show.")] = 8,
    as_json: Json = False,
) -> None:
    """Add and subtract words or tokens; show the nearest words."""
    from ...embeddings import check_compatible, combine, make_vocabularies, tokens_in_prompts
    from ...models import load

    tokens = tokens_in_prompts([expression], setting="")
    base = load(model or "mini")
    for token in tokens:
        check_compatible(token, base)
    found = []
    for encoder, words in enumerate(make_vocabularies(base)):
        vector = combine(words, expression, tokens, encoder)
        (nearest,) = words.nearest(vector[None], count, exclude=expression.split())
        found.append(nearest)
    if as_json:
        several = {"encoders": found} if len(found) > 1 else {}
        print(json.dumps({"expression": expression, "nearest": found[0]} | several))
        return
    for part, nearest in zip(base.family.encoders, found, strict=True):
        if len(found) > 1:
            print(f"{part.folder}:")
        for word, cosine in nearest:
            print(f"{cosine:6.3f}  {printable(word)}")
