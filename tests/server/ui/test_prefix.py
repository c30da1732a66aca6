"""The page below a path prefix, behind a real proxy, in a real browser."""

import pytest

from diffusekit.server.jobs.queue import Jobs
from diffusekit.settings import ServeSettings
from tests.helpers.browser import open_page, served
from tests.helpers.proxy import proxying

pytestmark = pytest.mark.slow
HEADERS = ("X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix", "X-Forwarded-For")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prefixed")
    settings = ServeSettings(outputs=str(folder / "outputs"), state=str(folder / "state"), device="cpu", auth="ann:x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "state" / "page"))
        jobs = Jobs(settings).open()
        with served(jobs) as address:
            yield address
        jobs.close(6)


@pytest.mark.parametrize(
    ("prefix", "strips", "address"),
    [("/sd", True, "/"), ("/sd", True, ""), ("/tools/sd", False, "")],
    ids=["stripped", "stripped, without a slash", "not stripped, without a slash"],
)
def test_an_image_is_generated_and_seen_below_a_prefix(server, browser, prefix, strips, address):
    errors = []
    with proxying(server, prefix, strips=strips, headers=HEADERS) as proxied:
        context = browser.new_context(http_credentials={"username": "ann", "password": "x"})
        page = open_page(context, f"{proxied}{address}", errors)
        assert page.evaluate("window.gradio_config.root") == proxied
        assert page.locator("link[rel=manifest]").get_attribute("href") == f"{prefix}/manifest.json"
        page.locator("#settings button").first.click()
        page.locator("#settings").get_by_label("Steps").first.fill("2")
        page.locator("#prompt textarea").fill("a (red:1.4) cat")
        page.click("#go")
        page.wait_for_selector("#result img[data-testid=detailed-image]")
        image = page.locator("#result img[data-testid=detailed-image]")
        assert image.get_attribute("src").startswith(f"{proxied}/gradio_api/file=")
        page.wait_for_function("document.querySelector('#result img[data-testid=detailed-image]').naturalWidth === 128")
        assert "Done in" in page.inner_text(".notice") and page.locator(".notice", has_text="(red:1.4)").count() == 1
        page.get_by_role("tab", name="Gallery").click()
        page.wait_for_selector(".thumb img")
        context.close()
    assert not [error for error in errors if "401" not in error]


def test_gradio_client_works_below_a_prefix(server):
    from gradio_client import Client

    with proxying(server, "/sd", headers=HEADERS) as proxied:
        client = Client(f"{proxied}/", httpx_kwargs={"auth": ("ann", "x")}, verbose=False)
        assert client.predict("a red cat", steps=1, api_name="/generate")
