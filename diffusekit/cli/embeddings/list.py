"""`diffusekit embeddings list`: the learned tokens in ./embeddings."""

import json
import sys
from typing import TYPE_CHECKING, Any

from ...display import format_count, printable
from ...errors import FileRefused
from .options import Json

if TYPE_CHECKING:
    from ...embeddings import LearnedToken


def command(as_json: Json = False) -> None:
    """List the learned tokens in ./embeddings.

    Files that cannot be used are named on stderr.
    """
    from ...embeddings import list_files, list_omitted, read

    rows = []
    for path in list_files():
        try:
            rows.append(summarize(read(path)))
        except FileRefused as refused:
            print(f"skipped: {printable(refused.message)}", file=sys.stderr)
    for omitted in list_omitted():
        print(f"left out: {printable(str(omitted))}", file=sys.stderr)
    if as_json:
        print(json.dumps({"embeddings": rows}))
        return
    for row in rows:
        width = "+".join(str(w) for w in row["width"])
        count = format_count(row["vectors"], "vector")
        print(printable(f"{row['name']:<24} {row['token']:<16} {count:<11} {width:<9} {row['base_model']}"))


def summarize(token: "LearnedToken") -> dict[str, Any]:
    """Return what a list shows of a token, with the keys of `--json`."""
    return {
        "name": token.name,
        "token": token.token,
        "vectors": token.count,
        "width": list(token.width),
        "base_model": token.metadata.get("base_model", ""),
        "path": str(token.path),
        "sha256": token.sha256,
    }
