"""`diffusekit embeddings show`: the metadata of a learned token, and the words nearest to its vectors."""

import json
import sys
from typing import TYPE_CHECKING, Any

from ...display import printable
from ...errors import FileRefused
from .list import summarize
from .options import Json, ModelName, Name

if TYPE_CHECKING:
    from ...embeddings import LearnedToken
    from ...models import Model


def command(name: Name, model: ModelName = None, as_json: Json = False) -> None:
    """Show a token's metadata and the words nearest to it."""
    from ...embeddings import check_compatible, load_token
    from ...models import load

    token = load_token(name)
    told = {key: text for key, text in token.metadata.items() if len(text) < 4000 and key != "start_vectors"}
    metadata = {key: _parse(text) for key, text in told.items()}
    values: dict[str, Any] = summarize(token) | _find_run(token) | {"facts": metadata}
    base = load(model or "mini")
    try:
        check_compatible(token, base)
        values["encoders"] = [_compare(token, base, i) for i in range(len(token.vectors))]
    except FileRefused as refused:
        if model is not None:
            raise
        print(f"no nearest words: {printable(refused.message)}", file=sys.stderr)
    if as_json:
        print(json.dumps(values))
    else:
        _print(values)


def _find_run(token: "LearnedToken") -> dict[str, str]:
    """Return the report and the strip of validation images of the run that trained a token, if they exist."""
    from ...inversion.run_folder import RunFolder

    assert token.path is not None
    run = RunFolder(token.path.parent, token.path.stem)
    paths = {"page": run.report, "previews": run.strip}
    return {key: str(path) for key, path in paths.items() if path.is_file()}


def _compare(token: "LearnedToken", base: "Model", encoder: int) -> dict[str, Any]:
    """Compare a token's vectors with the vocabulary of one text encoder: norm, percentile, nearest words."""
    from ...embeddings import Vocabulary

    words = Vocabulary(base, encoder)
    vectors = token.vectors[encoder]
    norms = vectors.norm(dim=1)
    rows = zip(norms.tolist(), words.norm_percentile(norms), words.nearest(vectors), strict=True)
    return {
        "name": base.family.encoders[encoder].folder,
        "typical_norm": words.typical_norm,
        "vectors": [{"norm": n, "percentile": p, "nearest": nearest} for n, p, nearest in rows],
    }


def _print(values: dict[str, Any]) -> None:
    rows = {key: value for key, value in values.items() if key not in ("facts", "encoders") and value != ""}
    rows |= {printable(key): value for key, value in values["facts"].items() if key != "base_model"}
    for key, value in rows.items():
        text = value if isinstance(value, str) else json.dumps(value)
        print(f"{key.replace('_', ' '):<12} {printable(text).replace(chr(10), ' ')[:400]}")
    encoders = values.get("encoders", [])
    for encoder in encoders:
        if len(encoders) > 1:
            print(f"{encoder['name']}:")
        for number, vector in enumerate(encoder["vectors"], 1):
            nearest = ", ".join(f"{word} {cosine:.2f}" for word, cosine in vector["nearest"])
            print(
                f"vector {number:<5} norm {vector['norm']:.2f} (percentile {vector['percentile']:.0f}, median "
                f"{encoder['typical_norm']:.2f}); nearest words: {printable(nearest)}"
            )


def _parse(text: str) -> Any:
    """Parse metadata that is a JSON object or list, like scores. Everything else stays a string."""
    try:
        return json.loads(text) if text[:1] in ("{", "[") else text
    except (ValueError, RecursionError):
        return text
