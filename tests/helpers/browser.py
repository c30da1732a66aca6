"""A served page and a browser, for the tabs' journeys: at the end nothing may have gone wrong in the page."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffusekit.server import app as server_app
from diffusekit.server.jobs.queue import Jobs
from diffusekit.server.serve import Server, address_of, listen
from diffusekit.settings import ServeSettings
from tests.helpers.server import LOADING, PATIENCE, paced, until  # noqa: F401

CHROMIUM = Path("/usr/bin/chromium")
WAIT = 240_000  # milliseconds
FRAMES = """() => new Promise((done) => {
  let count = 0;
  const next = () => (++count > 6 ? done() : requestAnimationFrame(next));
  next();
})"""


@contextlib.contextmanager
def paged(jobs: Jobs) -> Iterator[str]:
    """A real server with the page, ready for work; its address."""
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


@pytest.fixture
def jobs(tmp_path):
    settings = ServeSettings(outputs=str(tmp_path / "outputs"), state=str(tmp_path / "state"), device="cpu")
    opened = Jobs(settings).open()
    yield opened
    opened.close(6)


@pytest.fixture
def address(jobs, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(Path(jobs.settings.state) / "page"))
    with paged(jobs) as found:
        yield found


@pytest.fixture
def page(address):
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip("there is no chromium")
    wrong = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        enter(page, address, wrong)
        yield page
        browser.close()
    assert not wrong


def enter(page, address, wrong):
    """Open the page; whatever goes wrong in it from now on, or leaves the host, is noted in `wrong`."""
    page.set_default_timeout(WAIT)
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.on("response", lambda r: wrong.append(r.url) if r.status >= 400 else None)

    def elsewhere(request):
        if not request.url.startswith((address, "data:", "blob:")):
            wrong.append(f"request to {request.url}")

    page.on("request", elsewhere)
    page.goto(address)
    page.wait_for_selector("#go")


def fill(page, where, text):
    """Write into the box of a component."""
    write(page, page.locator(f"{where} textarea, {where} input").first, text)


def number(page, where, text):
    """Write into the number beside a slider."""
    write(page, page.locator(f"{where} input[type=number]"), text)


def write(page, box, text):
    """Write into a box that may have been made just now.

    To the fields of an accordion Gradio gives their values once more, a frame after it made them, and what
    was written meanwhile is lost: so some frames go by first.
    """
    box.wait_for()
    page.evaluate(FRAMES)
    box.fill(text)
    box.press("Tab")
    assert box.input_value() == text


def reads(page, box, text):
    """Wait until a box holds a text."""
    page.wait_for_function("([box, text]) => box.value === text", arg=[box.element_handle(), text])
