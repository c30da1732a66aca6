"""The button that empties a folder's trash: it says how much there is, and asks once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from ..storage import trash
from .context import Updates, small_button
from .html import render_notice


@dataclass(frozen=True)
class TrashButton:
    """The button of a folder's trash. `asked` is the usage of the trash when the visitor was asked."""

    folder: Path
    button: gr.Button
    asked: gr.State

    @classmethod
    def add(cls, folder: Path, elem_id: str) -> TrashButton:
        """Lay it out."""
        return cls(folder, small_button("Empty trash", visible=False, elem_id=elem_id), gr.State(""))

    @property
    def components(self) -> list[gr.Button | gr.State]:
        return [self.button, self.asked]

    def reset(self) -> Updates:
        """The button before anybody presses it. It is hidden while the trash is empty."""
        usage = trash.usage(self.folder)
        update = gr.update(value=f"Empty trash ({usage})", visible=usage.files > 0, variant="secondary")
        return {self.button: update, self.asked: ""}

    def press(self, asked: str, notice: gr.HTML) -> tuple[Updates, bool]:
        """Return what the page shows next, and whether the trash was emptied.

        The first press asks. So does a press after the content of the trash has changed.
        """
        usage = trash.usage(self.folder)
        if usage.files and str(usage) != asked:
            update = gr.update(value=f"Delete {usage} permanently", variant="stop", visible=True)
            question = render_notice(f"The trash holds {usage}.", "Press again to delete them permanently.")
            return {self.button: update, self.asked: str(usage), notice: question}, False
        deleted = trash.empty(self.folder)
        return self.reset() | {notice: render_notice(f"The trash is empty: {deleted} deleted.")}, True
