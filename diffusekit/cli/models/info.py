"""`diffusekit models info`: what a model is, from its files alone."""

import json

from ...display import printable
from .options import Json, Name, describe_as_json, describe_as_rows


def command(name: Name, as_json: Json = False) -> None:
    """Show what a model is and what it lacks.

    Family, task, parts, precision, size in memory, and what is missing. Only JSON files and headers are read, and
    nothing is fetched. The exit code is 8 for what cannot be loaded.
    """
    from ... import model_catalog

    entry = model_catalog.describe(name)
    if as_json:
        print(json.dumps(describe_as_json(entry)))
    else:
        rows = {"name": entry.name, "place": entry.place}
        rows |= {"revision": entry.revision} if entry.revision else {}
        rows |= describe_as_rows(entry.description)
        width = max(len(key) for key in rows)
        for key, value in rows.items():
            print(printable(f"{key.replace('_', ' '):<{width}}  {value}"))
        for note in entry.description.notes:
            print(printable(f"note: {note}"))
    if entry.description.kind in ("model", ""):
        entry.description.check()
