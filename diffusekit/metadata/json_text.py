"""JSON from untrusted texts: objects and their fields, without an error for anything else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def parse_object(text: str) -> dict[str, Any]:
    """Parse a JSON object, with NaN and line breaks as programs write them; {} for any other text."""
    if not text.lstrip().startswith("{"):
        return {}
    try:
        found = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def first_of(values: Mapping[str, Any], *names: str) -> Any:
    """Return the first of the fields that is there and not null."""
    return next((values[name] for name in names if values.get(name) is not None), None)


def join_size(width: Any, height: Any) -> str | None:
    """Write a size as A1111 does; None unless both sides are numbers."""
    sides = [side for side in (width, height) if isinstance(side, int | float | str) and not isinstance(side, bool)]
    return "x".join(str(side).removesuffix(".0") for side in sides) if len(sides) == 2 else None
