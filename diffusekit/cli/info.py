"""`diffusekit info`: how a picture was made."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..display import printable
from ..errors import FileRefused


def command(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="A PNG, JPEG or WebP.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show how a picture was made, by diffusekit or by another program that says so."""
    from ..metadata import read

    found = read(picture)
    if as_json:
        print(found.model_dump_json())
        return
    if found.record is None and not found.parameters:
        label = ", except that a trained model made it" if found.label else ""
        raise FileRefused(
            f"{picture} does not say how it was made{label}",
            "pictures from diffusekit, A1111, ComfyUI, InvokeAI, NovelAI and Fooocus do",
        )
    rows = dict(found.parameters)
    if found.record is not None:
        record = found.record
        rows = {
            k: v
            for k, v in record.settings.model_dump().items()
            if v not in (None, "", (), []) and k not in ("images", "batch")
        }
        rows |= {"made on": f"{record.device}, {record.dtype}", "model revision": record.revision}
        rows |= {f"grid {name}": ", ".join(labels) for name, labels in record.axes.items()}
        if record.embeddings:
            tokens = (f"{name} {sha[:12]}" for name, sha in record.embeddings.items())
            rows["embedding"] = ", ".join(tokens)
        rows["versions"] = ", ".join(f"{k} {v}" for k, v in record.versions.items())
    rows["label"] = "made by a trained model (IPTC trainedAlgorithmicMedia)" if found.label else "none"
    width = max(len(key) for key in rows)
    for key, value in rows.items():
        text = printable(value if isinstance(value, str) else json.dumps(value), allow="\n")
        print(f"{key.replace('_', ' '):<{width}}  {text}")
