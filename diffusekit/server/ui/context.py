"""What the tabs of the page have in common, and the one way in which a tab reaches another.

A tab is a module with `add(house)`, called in the order of `TABS` in `ui/__init__.py` inside its own
`gr.Tab`, and optionally `connect(house)`, called when all tabs are there: a tab puts what others may
use into `house.places`, and `connect` finds it. Knows no tab.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from ...errors import DiffusekitError
from ...settings import ServeSettings
from ..jobs.queue import Jobs
from ..storage.gallery import Gallery
from .html import render_notice

log = logging.getLogger(__name__)
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
QUICK: dict[str, Any] = PRIVATE | {"queue": False, "show_progress": "hidden"}


@dataclass
class House:
    """The server's parts that the page uses, and the components that tabs lend each other.

    `tabs` is the row of tabs: an event that returns `gr.Tabs(selected=id)` for it opens a tab. `places`
    by name, see the head of each tab's module.
    """

    jobs: Jobs
    settings: ServeSettings
    album: Gallery
    tabs: gr.Tabs | None = None
    places: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, jobs: Jobs, settings: ServeSettings) -> House:
        return cls(jobs, settings, Gallery(jobs.outputs))


def error_notice(error: Exception) -> str:
    """What the page shows of an error: its sentence and hint; of an unexpected one only its name."""
    if isinstance(error, DiffusekitError):
        return render_notice(error.message, error.hint, kind="error")
    log.error("unexpected", exc_info=error)
    return render_notice(f"unexpected: {type(error).__name__}", "the server's log says more", kind="error")
