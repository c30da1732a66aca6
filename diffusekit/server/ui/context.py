"""What all tabs share: the server's parts, the options of an event, and how an error is shown."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import gradio as gr

from ...errors import DiffusekitError
from ...settings import ServeSettings
from ..jobs.queue import Jobs
from ..storage.gallery import Gallery
from .html import render_notice

log = logging.getLogger(__name__)
Updates = dict[Any, Any]  # what a handler returns: new values by component
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
QUICK: dict[str, Any] = PRIVATE | {"queue": False, "show_progress": "hidden"}
UNLIMITED: dict[str, Any] = PRIVATE | {"concurrency_limit": None, "show_progress": "hidden"}
SLOW: dict[str, Any] = PRIVATE | {"concurrency_limit": 2, "show_progress": "hidden"}
IMAGE_TYPES = [".png", ".jpg", ".jpeg", ".webp"]


@dataclass(frozen=True)
class PageContext:
    """The server's parts behind the page.

    `cache` is the folder of Gradio's copies of uploads and results. Files there may be downloaded.
    """

    jobs: Jobs
    settings: ServeSettings
    gallery: Gallery
    cache: Path


def small_button(label: str, **options: Any) -> gr.Button:
    """A button in a row of tools."""
    return gr.Button(label, size="sm", min_width=0, **options)


class HasNotice(Protocol):
    """Handlers of a tab with a line for notices."""

    @property
    def notice(self) -> gr.HTML: ...


def errors_as_notice(handler: Callable[..., Updates]) -> Callable[..., Updates]:
    """Decorate a method of handlers: an error becomes a notice on the page."""

    @functools.wraps(handler)
    def wrapped(self: HasNotice, *values: Any) -> Updates:
        try:
            return handler(self, *values)
        except Exception as error:
            return {self.notice: error_notice(error)}

    return wrapped


def error_notice(error: Exception) -> str:
    """Render an error: its message and hint, or only the class of an unexpected one."""
    if isinstance(error, DiffusekitError):
        return render_notice(error.message, error.hint, kind="error")
    log.error("unexpected", exc_info=error)
    return render_notice(f"unexpected: {type(error).__name__}", "see the server's log", kind="error")
