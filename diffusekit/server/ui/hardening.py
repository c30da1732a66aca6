"""Limits on Gradio: a request can neither read a file outside Gradio's cache nor make the server fetch a URL.

Gradio would do both for a page that is mounted instead of launched.
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

IMAGES = ("image/png", "image/jpeg", "image/webp", "image/gif")


def harden(demo: gr.Blocks) -> None:
    """Accept only uploaded files as inputs, and no URLs. Gradio checks that only for a page that it launched."""
    demo.has_launched = True
    processing_utils.async_ssrf_protected_get = refuse_fetch  # every download of Gradio's goes through it


async def refuse_fetch(url: str) -> Any:
    raise FileForbidden("this server does not fetch from other addresses", "upload the file")


def file_routes() -> APIRouter:
    """Routes that replace Gradio's own, which would serve more."""
    routes = APIRouter()
    for path in ("/gradio_api/file={name:path}", "/gradio_api/file/{name:path}"):
        routes.add_api_route(path, _send_file, methods=["GET", "HEAD"], include_in_schema=False)
    return routes


def _send_file(name: str) -> FileResponse:
    """A file of Gradio's cache. Everything but an image is sent as a download, never as a page."""
    path = Path(name).resolve()
    if not path.is_relative_to(Path(utils.get_upload_folder()).resolve()) or not path.is_file():
        raise FileForbidden("the page has no such file", "images are below /outputs/")
    media_type = mimetypes.guess_type(path.name)[0]
    if media_type in IMAGES:
        return FileResponse(path, media_type=media_type)
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)
