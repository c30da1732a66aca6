"""The web page: `python gradio_app.py`, `gradio gradio_app.py`, or a Space. Settings: DIFFUSEKIT_PORT, ..."""

import contextlib
import logging

from diffusekit.cli.main import errors_as_exit
from diffusekit.config import resolve_settings
from diffusekit.server import serve, ui
from diffusekit.settings import ServeSettings

with errors_as_exit():
    server = serve.prepare(resolve_settings(ServeSettings, "serve", {}), ui)
    demo = server.page
    if __name__ == "__main__":
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn passes it on when everything has stopped
            server.run(logging.getLogger("diffusekit").warning)
