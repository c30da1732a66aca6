"""The web page: `python gradio_app.py`, `gradio gradio_app.py`, or a Space. Settings: DIFFUSEKIT_PORT, ..."""

from diffusekit.cli.main import told
from diffusekit.server.ui import alone

with told():
    demo, serve = alone()
    if __name__ == "__main__":
        serve()
