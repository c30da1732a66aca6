"""The web page: `python gradio_app.py`, `gradio gradio_app.py`, or a Space. Settings: DIFFUSEKIT_PORT, ..."""

from diffusekit.cli.main import told
from diffusekit.server.ui import standalone

with told():
    demo, serve = standalone()
    if __name__ == "__main__":
        serve()
