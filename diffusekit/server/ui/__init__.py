"""The web page: `build` lays it out over the server's jobs, `mount` adds it to the server's application.

Each tab has three modules in `tabs/`: `x.py` lays out its components, `x_handlers.py` reacts to its events, and
`x_html.py` renders its HTML. Nothing on the page loads from another host.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.middleware import Middleware

from ...settings import MAX_UPLOAD, ServeSettings
from ..jobs.queue import Jobs
from ..storage.gallery import Gallery
from . import hardening, html, prefix, theme
from .context import QUICK, PageContext
from .tabs import gallery, generate, learn, see, tokens
from .tabs.gallery_handlers import GalleryHandlers
from .tabs.generate_handlers import GenerateHandlers
from .tabs.learn_handlers import LearnHandlers
from .tabs.page import Page
from .tabs.see_handlers import SeeHandlers
from .tabs.tokens_handlers import TokensHandlers

HANDLERS = (GenerateHandlers, GalleryHandlers, LearnHandlers, SeeHandlers, TokensHandlers)
UPLOAD_PATHS = ("/gradio_api/upload",)  # the path, below that of the page, that takes other bodies than JSON
CACHE_SECONDS = 3600  # how long copies of uploads and results are kept


def build(jobs: Jobs, settings: ServeSettings) -> gr.Blocks:
    """Lay out the page over opened `jobs`, and connect its events."""
    context = PageContext(jobs, settings, Gallery(jobs.outputs), _configure_gradio(settings))
    delete_cache = (CACHE_SECONDS, CACHE_SECONDS)
    with gr.Blocks(title="diffusekit", analytics_enabled=False, delete_cache=delete_cache, fill_width=True) as demo:
        gr.HTML(html.render_banner(), elem_id="banner")
        with gr.Tabs(elem_id="tabs") as tabs:
            page = Page(
                context,
                tabs,
                generate=generate.add(context),
                gallery=gallery.add(context),
                learn=learn.add(context),
                see=see.add(context),
                tokens=tokens.add(context),
            )
        for handlers in HANDLERS:
            handlers(page).connect()
        form = page.generate.form
        demo.load(lambda: form.refresh_learned(jobs.embeddings), None, form.learned, **QUICK)
        demo.load(lambda: form.refresh_loras(jobs.loras), None, form.fields["lora"], **QUICK)
    return demo.queue(max_size=200, default_concurrency_limit=None, api_open=False)


def _configure_gradio(settings: ServeSettings) -> Path:
    """Turn analytics off; return the folder of Gradio's cache. Gradio reads both from the environment."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    return Path(os.environ.setdefault("GRADIO_TEMP_DIR", str(Path(settings.state).resolve() / "page")))


def mount(app: FastAPI, demo: gr.Blocks, settings: ServeSettings, *, path: str = "/") -> FastAPI:
    """Add the page to an application, behind the application's middleware."""
    hardening.harden(demo)
    app.include_router(hardening.file_routes())
    app.user_middleware.append(Middleware(prefix.PageMiddleware))  # the innermost one
    # Without a root path of its own, Gradio takes that of each request.
    return gr.mount_gradio_app(app, demo, path, root_path="", **_permissions(settings), **theme.page_options())


def _permissions(settings: ServeSettings) -> dict[str, Any]:
    """What the page may do, as arguments of `mount_gradio_app`.

    `allowed_paths` are the folders of files that the page shows copies of.
    """
    folders = (settings.outputs, settings.state, settings.embeddings)
    return {
        "allowed_paths": [str(Path(folder).resolve()) for folder in folders],
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "max_file_size": MAX_UPLOAD,
        "show_error": False,
        "ssr_mode": False,
        "mcp_server": False,  # ours is in server/routes/mcp_tool.py
        "pwa": False,
    }
