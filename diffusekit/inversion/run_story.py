"""The story of a training run, read from its folder while or after it is written: losses, scores, previews.

Takes no lock and changes nothing. Knows no jobs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from .. import images
from ..errors import DiffusekitError

INIT = 0  # the step of the preview that shows the init word
LOOKS = 4  # pictures of the token alone, the first in a preview


class Story:
    """What a run's folder tells at this moment; make another for the next one."""

    def __init__(self, folder: Path):
        self.folder, self.name = folder, folder.name
        self.token = folder.with_name(f"{folder.name}.safetensors")

    @cached_property
    def entries(self) -> list[dict[str, Any]]:
        """The lines of the log; a line that is being written is left out."""
        try:
            lines = (self.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return []
        found = []
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and isinstance(entry.get("step"), int):
                found.append(entry)
        return found

    @property
    def step(self) -> int:
        return max((entry["step"] for entry in self.entries), default=0)

    @property
    def begun(self) -> bool:
        """Whether anything was learned so far."""
        return bool(self.entries) or any((self.folder / "checkpoints").glob("*.safetensors"))

    @property
    def done(self) -> bool:
        return self.token.is_file()

    @property
    def latest(self) -> dict[str, Any]:
        """The newest entry with a loss."""
        return next((entry for entry in reversed(self.entries) if "loss" in entry), {})

    @property
    def baseline(self) -> dict[str, float]:
        """Scores of the init word, and how alike the photographs are among themselves."""
        found = next((e["baseline"] for e in self.entries if "baseline" in e), {})
        return {key: value for key, value in found.items() if _is_number(value)}

    @property
    def best(self) -> dict[str, Any]:
        """The newest entry that was the best so far."""
        return next((entry for entry in reversed(self.entries) if entry.get("best")), {})

    def curve(self, measure: str) -> list[tuple[int, float]]:
        """(step, value) of a measure, where it was taken."""
        return [(e["step"], e[measure]) for e in self.entries if _is_number(e.get(measure))]

    @cached_property
    def previews(self) -> list[tuple[int, Path]]:
        """(step, file) in order; step 0 shows the init word."""
        found = []
        for path in (self.folder / "previews").glob("*.png"):
            if path.stem == "init" or path.stem.isdecimal():
                found.append((INIT if path.stem == "init" else int(path.stem), path))
        return sorted(found)


def sheet(path: Path, columns: int = LOOKS) -> Image.Image:
    """A preview's pictures in rows of `columns` instead of one; raises `DiffusekitError` if damaged."""
    return images.make_grid(list(pictures(path)), columns)


def pictures(path: Path) -> Sequence[Image.Image]:
    """The square pictures of a preview: the token alone, then the prompts that change it."""
    with images.open_image(path) as opened:
        whole = images.to_rgb(opened)
    side = whole.height
    return [whole.crop((x, 0, x + side, side)) for x in range(0, whole.width - side + 1, side)]


def shown(story: Story) -> list[Image.Image]:
    """The newest preview's pictures of the token alone; none while there is none."""
    try:
        return list(pictures(story.previews[-1][1])[:LOOKS]) if story.previews else []
    except (DiffusekitError, OSError):
        return []


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
