"""What Gradio would do for strangers, and this server does not: read any file a request names, fetch addresses.

Copies of uploads and of what the page shows lie in Gradio's cache; nothing else is served, and as data, never
as a page. Knows no components.
"""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import APIRouter
from fastapi.responses import FileResponse
from gradio import processing_utils, utils

from ..errors import FileForbidden

PICTURES = ("image/png", "image/jpeg", "image/webp", "image/gif")


def harden(demo: gr.Blocks) -> None:
    """Inputs must be uploaded files (Gradio asks that only of a page it launched itself), not addresses."""
    demo.has_launched = True
    processing_utils.async_ssrf_protected_get = _fetch  # every download of Gradio's goes through it


async def _fetch(url: str) -> Any:
    raise FileForbidden("this server fetches nothing from other addresses", "upload the file")


def file_routes() -> APIRouter:
    """Routes that stand in for Gradio's own, which would serve more."""
    routes = APIRouter()
    for path in ("/gradio_api/file={name:path}", "/gradio_api/file/{name:path}"):
        routes.add_api_route(path, _file, methods=["GET", "HEAD"], include_in_schema=False)
    return routes


def _file(name: str) -> FileResponse:
    """A file of Gradio's cache; what is no picture is there to be kept, not to be opened."""
    path = Path(name).resolve()
    if not path.is_relative_to(Path(utils.get_upload_folder()).resolve()) or not path.is_file():
        raise FileForbidden("the page has no such file", "pictures are below /outputs/")
    kind = mimetypes.guess_type(path.name)[0]
    if kind in PICTURES:
        return FileResponse(path, media_type=kind)
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)
