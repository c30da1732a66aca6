"""The web page: `build` makes it over the server's jobs, `mount` puts it on the server's application.

A tab is a module with `add(house)`, named in `TABS`; see `house.py`. Nothing here leaves the machine.
"""

from __future__ import annotations

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before the first import of gradio

from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI

from ...settings import MAX_UPLOAD, ServeSettings
from ..jobs.queue import Jobs
from . import hardening, html, theme
from .context import QUICK, House
from .tabs import gallery, generate, learn, see, tokens

TABS: tuple[tuple[str, str, Any], ...] = (
    ("generate", "Generate", generate),
    ("gallery", "Gallery", gallery),
    ("learn", "Learn S*", learn),
    ("see", "See", see),
    ("tokens", "Tokens", tokens),
)
UPLOAD_PATHS = ("/gradio_api/upload",)  # the path, below that of the page, that takes other bodies than JSON
CACHED = 3600  # seconds that copies of uploads and results are kept


def build(jobs: Jobs, settings: ServeSettings) -> gr.Blocks:
    """The page over opened `jobs`."""
    os.environ.setdefault("GRADIO_TEMP_DIR", str(Path(settings.state).resolve() / "page"))
    house = House.of(jobs, settings)
    with gr.Blocks(title="diffusekit", analytics_enabled=False, delete_cache=(CACHED, CACHED), fill_width=True) as demo:
        gr.HTML(html.render_banner(), elem_id="banner")
        with gr.Tabs(elem_id="tabs") as house.tabs:
            for name, label, tab in TABS:
                with gr.Tab(label, id=name, elem_id=f"tab-{name}") as house.places[f"tab.{name}"]:
                    tab.add(house)
        for _, _, tab in TABS:
            if hasattr(tab, "connect"):
                tab.connect(house)
        fresh, outputs = house.places["refresh"]
        demo.load(fresh, None, outputs, **QUICK)
    return demo.queue(max_size=200, default_concurrency_limit=None, api_open=False)


def mount(app: FastAPI, demo: gr.Blocks, settings: ServeSettings, *, path: str = "/") -> FastAPI:
    """Put the page on an application, behind whatever guards it."""
    hardening.harden(demo)
    app.include_router(hardening.file_routes())
    return gr.mount_gradio_app(app, demo, path, **_doors(settings), **theme.page_options())


def _doors(settings: ServeSettings) -> dict[str, Any]:
    """What the page may do, as `mount_gradio_app` and `launch` take it.

    `allowed_paths` is where files may lie that the page shows copies of.
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
