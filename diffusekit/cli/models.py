"""`diffusekit models`: the models that can be used without a network."""

import json
from typing import Annotated

import typer

from ..display import format_size

app = typer.Typer(help="Show the models that need no download.", no_args_is_help=True)


@app.callback()
def _group() -> None: ...


@app.command("list")
def list_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the embedded model and those in the cache."""
    from ..hub import MINI, installed

    rows = []
    for name, folder in installed().items():
        size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        rows.append({"name": name, "size_mb": round(size / 1e6, 1), "embedded": folder == MINI})
    if as_json:
        print(json.dumps({"models": rows}))
        return
    for row in rows:
        where = "embedded" if row["embedded"] else "in the cache"
        print(f"{row['name']:<40} {format_size(row['size_mb'] * 1e6):>9}  {where}")
