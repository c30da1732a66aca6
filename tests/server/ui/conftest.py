"""A served page in a browser. The server, its jobs and the browser are started once for each module."""

import shutil

import pytest

from diffusekit.server.jobs.queue import Jobs
from diffusekit.settings import ServeSettings
from tests.helpers.browser import CHROMIUM, open_page, served


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Jobs and the address of a server whose model is loaded. Tokens are in `embeddings` of the working folder."""
    folder = tmp_path_factory.mktemp("served")
    settings = ServeSettings(outputs=str(folder / "outputs"), state=str(folder / "state"), device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "state" / "page"))
        jobs = Jobs(settings).open()
        with served(jobs) as address:
            yield jobs, address
        jobs.close(6)


@pytest.fixture
def jobs(server):
    """The jobs of the server, without images of earlier tests."""
    shutil.rmtree(server[0].outputs)
    server[0].outputs.mkdir()
    return server[0]


@pytest.fixture
def address(server, jobs):
    return server[1]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip("there is no chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, address):
    """Open the page; at the end, nothing may have gone wrong in it."""
    contexts, errors = [], []

    def visit_page(width=1280, height=900, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        return open_page(context, address, errors)

    yield visit_page
    for context in contexts:
        context.close()
    assert not errors


@pytest.fixture
def page(visit):
    return visit()
