"""`diffusekit serve`: the web page and the APIs, over HTTP."""

import logging
import sys
from typing import Any

from ..config import resolve_settings
from ..settings import ServeSettings
from .options import with_settings
from .progress import quiet_libraries


@with_settings(ServeSettings)
def command(settings: dict[str, Any]) -> None:
    """The web page, and the APIs that Open WebUI, SillyTavern and OpenAI's clients know."""
    resolved = resolve_settings(ServeSettings, "serve", settings)
    with quiet_libraries():
        from ..server.routes import mcp_tool
        from ..server.security import SecurityPolicy

        SecurityPolicy.from_settings(resolved)  # before torch is imported: a server that would be open ends at once
        if resolved.mcp:
            mcp_tool.check_installed()
        from .. import models
        from ..server.app import build
        from ..server.jobs.queue import Jobs
        from ..server.serve import Server, listen, url

        models.locate(resolved.model)
        listener = listen(resolved.host, resolved.port)
        jobs = Jobs(resolved).open()
        if resolved.no_ui:
            app = build(resolved, jobs)
        else:
            from ..server import ui

            page = ui.build(jobs, resolved)
            app = ui.mount(build(resolved, jobs, uploads=ui.UPLOADS), page, resolved)
        print(url(listener), flush=True)
        print("Ctrl+C stops it; jobs that wait are kept", file=sys.stderr)
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        try:
            Server(app, jobs).run(sockets=[listener])
        finally:
            jobs.close(0)
