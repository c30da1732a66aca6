"""The web page: `python gradio_app.py`, `gradio gradio_app.py`, or a Space. Settings: DIFFUSEKIT_PORT, ..."""

from diffusekit.cli.main import errors_as_exit
from diffusekit.server.ui import standalone

with errors_as_exit():
    demo, serve = standalone()
    if __name__ == "__main__":
        serve()
