"""`diffusekit models`: the models that can be used without a network."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..display import format_size

app = typer.Typer(help="Show the models that need no download.", no_args_is_help=True)


@app.callback()
def _group() -> None: ...


@app.command("list")
def list_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the embedded model and those in the cache.

    Every revision has a line. A model that cannot be loaded is listed with the reason.
    """
    rows = _rows()
    if as_json:
        print(json.dumps({"models": rows}))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        where = "embedded" if row["embedded"] else f"{row['revision'][:12]} {' '.join(row['refs'])}".strip()
        print(f"{row['name']:<{width}}  {format_size(row['size_mb'] * 1e6):>8}  {where:<18}  {_state(row)}")


def _state(row: dict[str, Any]) -> str:
    if row["problem"]:
        return f"cannot be loaded: {row['problem']}"
    checker = "; its safety checker is not run" if row["safety_checker"] else ""
    return f"{row['class']}, {row['precision']} precision{checker}"


def _rows() -> list[dict[str, Any]]:
    from .. import hub_cache
    from ..hub import MINI
    from ..version import __version__

    size = sum(p.stat().st_size for p in MINI.rglob("*") if p.is_file())
    facts = {"embedded": True, "revision": f"diffusekit-{__version__}", "refs": [], "problem": ""}
    rows = [{"name": "mini", "size_mb": round(size / 1e6, 1), **facts, **_describe("mini", MINI)}]
    for each in hub_cache.list_revisions():
        facts = {"embedded": False, "revision": each.commit, "refs": list(each.refs), "problem": each.problem}
        more = _describe(each.name, each.folder)
        rows.append({"name": each.name, "size_mb": round(each.size / 1e6, 1), **facts, **more})
    return rows


def _describe(name: str, folder: Path) -> dict[str, Any]:
    """The class, the precision of the weights and the safety checker, as far as the files say."""
    from ..errors import ModelError
    from ..model_files import read_folder, read_json

    facts: dict[str, Any] = {"class": "", "precision": "", "safety_checker": False}
    try:
        facts["class"] = str(read_json(folder / "model_index.json").get("_class_name", ""))
        files = read_folder(name, folder)
        return facts | {"precision": files.precision, "safety_checker": files.has_safety_checker}
    except ModelError:
        return facts
