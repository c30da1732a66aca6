"""`diffusekit models list`: what is here and needs no download."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...display import format_size, printable
from ...errors import UsageError
from .options import Json, describe_as_json

if TYPE_CHECKING:
    from ...model_catalog import CatalogEntry


def command(
    kind: Annotated[str, typer.Option("--kind", help="What to list: model, lora, vae or embedding.")] = "model",
    as_json: Json = False,
) -> None:
    """List the models that are here.

    These are the embedded one, those in your folders, and those in the hub's cache. Every revision has a line. What
    cannot be loaded is listed with the reason.
    """
    from ... import model_catalog, model_names, places

    if kind not in places.KINDS:
        raise UsageError(f"unknown kind {kind[:60]!r}", f"kinds: {', '.join(places.KINDS)}")
    wanted = places.KINDS[places.KINDS.index(kind)]
    entries = model_catalog.list_entries(wanted)
    if absent := model_names.say_absent_roots().removeprefix("; "):
        print(f"warning: {absent}", file=sys.stderr)
    if as_json:
        print(json.dumps({f"{wanted}s": [describe_as_json(entry) | _describe_class(entry) for entry in entries]}))
        return
    width = max((len(entry.name) for entry in entries), default=0)
    for entry in entries:
        where = f"{entry.revision[:12]} {' '.join(entry.refs)}".strip() if entry.refs or entry.revision else entry.place
        where = entry.place if entry.place == "embedded" else where
        size = format_size(entry.description.size_on_disk)
        print(printable(f"{entry.name:<{width}}  {size:>8}  {where:<18}  {_state(entry)}"))
    if not entries:
        print(f"there is no {model_names.WORDS[wanted]} in {', '.join(map(str, places.roots()))}", file=sys.stderr)


def _state(entry: "CatalogEntry") -> str:
    about = entry.description
    if about.kind != "model" or not about.problem:
        checker = "; with a safety checker" if about.has_safety_checker else ""
        return f"{about.summary() if about.kind == 'model' else about.label or about.kind}{checker}"
    reason = about.problem.removeprefix(f"{about.path} is ").replace(f"{about.path}/", "")
    return f"cannot be loaded: {reason}"


def _describe_class(entry: "CatalogEntry") -> dict[str, Any]:
    """The class of a folder in diffusers layout, and the precisions that its weights are there in."""
    from ...errors import ModelError
    from ...model_files import read_folder, read_json

    facts: dict[str, Any] = {"class": "", "precision": ""}
    if entry.description.layout != "folder":
        return facts
    try:
        facts["class"] = str(read_json(entry.description.path / "model_index.json").get("_class_name", ""))
        return facts | {"precision": read_folder(entry.name, entry.description.path).precision}
    except ModelError:
        return facts
