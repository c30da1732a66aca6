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
    """Serve the web page and the HTTP APIs.

    The APIs are those of A1111 and OpenAI, for Open WebUI, SillyTavern and other clients.
    """
    resolved = resolve_settings(ServeSettings, "serve", settings)
    with quiet_libraries():
        from ..server import serve

        serve.check(resolved)  # before torch is imported
        listener = serve.listen(resolved.host, resolved.port)
        if resolved.no_ui:
            server = serve.prepare(resolved)
        else:
            from ..server import ui

            server = serve.prepare(resolved, ui)
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        server.run(_announce, listener=listener)


def _announce(address: str) -> None:
    print(address, flush=True)
    print("press Ctrl-C to stop the server; queued jobs are kept", file=sys.stderr)
