"""A served page, and what tests do in a browser."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from diffusekit.server import app as server_app
from diffusekit.server.jobs.queue import Jobs
from diffusekit.server.serve import Server, address_of, listen
from tests.helpers.server import LOADING, PATIENCE, until

CHROMIUM = Path("/usr/bin/chromium")
TIMEOUT = 240_000  # milliseconds
FRAMES = """() => new Promise((done) => {
  let count = 0;
  const next = () => (++count > 6 ? done() : requestAnimationFrame(next));
  next();
})"""


@contextlib.contextmanager
def served(jobs: Jobs) -> Iterator[str]:
    """Run a real server with the page until its model is loaded; yield its address."""
    from diffusekit.server import ui

    app = server_app.build(jobs.settings, jobs, upload_paths=ui.UPLOAD_PATHS)
    ui.mount(app, ui.build(jobs, jobs.settings), jobs.settings)
    listener = listen("127.0.0.1", 0)
    server = Server(app, jobs)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        until(lambda: server.started and jobs.is_ready, LOADING)
        yield address_of(listener)
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


def open_page(context, address, errors):
    """Open the page. Errors of its scripts, failed requests and requests to other hosts are added to `errors`."""
    page = context.new_page()
    page.set_default_timeout(TIMEOUT)
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("response", lambda response: errors.append(response.url) if response.status >= 400 else None)

    def check_host(request):
        if not request.url.startswith((address, "data:", "blob:")):
            errors.append(f"request to {request.url}")

    page.on("request", check_host)
    page.goto(address)
    page.wait_for_selector("#go")
    return page


def fill(page, where, text):
    """Write into the box of a component."""
    write(page, page.locator(f"{where} textarea, {where} input").first, text)


def fill_number(page, where, text):
    """Write into the number beside a slider."""
    write(page, page.locator(f"{where} input[type=number]"), text)


def write(page, box, text):
    """Write into a box that may have been made just now.

    Gradio sets the fields of an accordion again one frame after it created them, and what was written in between
    is lost. So wait for some frames first.
    """
    box.wait_for()
    page.evaluate(FRAMES)
    box.fill(text)
    box.press("Tab")
    assert box.input_value() == text


def wait_for_value(page, box, text):
    """Wait until a box holds a text."""
    page.wait_for_function("([box, text]) => box.value === text", arg=[box.element_handle(), text])
