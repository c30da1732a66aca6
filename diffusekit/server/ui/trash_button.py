"""The button that empties a trash for good: it says how much there is, and asks once.

Knows no tab, and no other files than those in one folder's trash.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ..storage import trash
from .html import render_notice


@dataclass(frozen=True)
class TrashButton:
    """The button of a folder's trash, and what was asked about with it: the trash as it was then."""

    folder: Path
    button: gr.Button
    asked: gr.State

    @classmethod
    def add(cls, folder: Path, name: str) -> TrashButton:
        """Lay it out; `name` is the element's id."""
        button = gr.Button("Empty trash", size="sm", visible=False, min_width=0, elem_id=name)
        return cls(folder, button, gr.State(""))

    @property
    def parts(self) -> list[Any]:
        return [self.button, self.asked]

    def fresh(self) -> dict[Any, Any]:
        """How the button looks before anybody presses it; it is not there while the trash is empty."""
        held = trash.usage(self.folder)
        update = gr.update(value=f"Empty trash ({held})", visible=held.files > 0, variant="secondary")
        return {self.button: update, self.asked: ""}

    def press(self, asked: str, note: gr.HTML) -> tuple[dict[Any, Any], bool]:
        """What the page shows next, words in `note`, and whether everything is gone.

        The first press asks, as does one when there is something else in the trash than was asked about.
        """
        held = trash.usage(self.folder)
        if held.files and str(held) != asked:
            update = gr.update(value=f"Delete {held}, for good", variant="stop", visible=True)
            words = render_notice(f"The trash holds {held}.", "Press again to delete them for good.")
            return {self.button: update, self.asked: str(held), note: words}, False
        gone = trash.empty(self.folder)
        return self.fresh() | {note: render_notice(f"The trash is empty: {gone} are gone.")}, True
