"""`diffusekit serve`: pictures over HTTP."""

import logging
import sys
from typing import Any

from ..settings import ServeSettings, resolve
from .options import with_settings
from .progress import quiet_libraries


@with_settings(ServeSettings)
def command(settings: dict[str, Any]) -> None:
    """Serve the APIs that Open WebUI, SillyTavern and OpenAI's clients know; docs/serving.md."""
    resolved = resolve(ServeSettings, "serve", settings)
    with quiet_libraries():
        from ..server.guard import Rules

        Rules.of(resolved)  # before torch is imported: a server that would be open ends at once
        from .. import models
        from ..server.app import build
        from ..server.jobs import Jobs
        from ..server.listening import Server, listen, url

        models.find(resolved.model)
        listener = listen(resolved.host, resolved.port)
        jobs = Jobs(resolved).open()
        app = build(resolved, jobs)
        print(url(listener), flush=True)
        print("Ctrl+C stops it; jobs that wait are kept", file=sys.stderr)
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        try:
            Server(app, jobs).run(sockets=[listener])
        finally:
            jobs.close(0)
