"""The real page, mounted: a key on every route, no file but its own, no address but this."""

import asyncio
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from starlette.routing import Mount

from diffusekit.server import app as server_app
from diffusekit.server import security, ui
from diffusekit.server.errors import FileForbidden
from diffusekit.server.jobs.queue import Jobs
from diffusekit.server.jobs.worker import Worker
from diffusekit.server.ui import hardening, theme
from diffusekit.settings import ServeSettings

FILE = {"meta": {"_type": "gradio.FileData"}}


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """The application with its page, by settings; nobody works, so no model is loaded."""
    monkeypatch.setattr(Worker, "run", lambda self: None)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "state/page"))
    opened = []

    def build(**settings):
        rules = ServeSettings(outputs=str(tmp_path / "out"), state=str(tmp_path / "state"), **settings)
        jobs = Jobs(rules).open()
        opened.append(jobs)
        page = ui.build(jobs, rules)
        app = ui.mount(server_app.build(rules, jobs, upload_paths=ui.UPLOAD_PATHS), page, rules)
        return app, page

    yield build
    for jobs in opened:
        jobs.close(1)


def client_of(app) -> TestClient:
    return TestClient(app, base_url="http://127.0.0.1:7860", raise_server_exceptions=False)


def routes(app, prefix=""):
    for route in app.routes:
        if isinstance(route, Mount):
            yield from (routes(route.app, prefix + route.path) if hasattr(route.app, "routes") else ())
        elif hasattr(route, "routes") or hasattr(route, "original_router"):
            yield from routes(getattr(route, "original_router", route), prefix)
        else:
            yield from ((m, prefix + route.path) for m in getattr(route, "methods", None) or ["GET"])


@pytest.mark.slow
def test_every_route_of_the_mounted_page_wants_a_key(serve):
    app, _ = serve(auth="ann:secret")
    found = set(routes(app))
    assert len(found) > 60 and ("POST", "/gradio_api/queue/join") in found
    client = client_of(app)
    for method, path in found:
        got = client.request(method, path.replace("{", "").replace("}", ""))
        assert got.status_code == (200 if path == "/healthz" else 401), (method, path)


def quick(page, inputs: int) -> int:
    """The number of the page's function behind the token counter: it runs without a queue."""
    return next(i for i, fn in page.fns.items() if fn.name == "count_tokens" and len(fn.inputs) == inputs)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["outside", "address"])
def test_a_request_cannot_name_a_file_or_an_address(serve, tmp_path, where, monkeypatch):
    app, page = serve()
    secret = tmp_path / "secret.txt"
    secret.write_text("password")
    fetched = []
    monkeypatch.setattr("safehttpx.get", lambda *a, **k: fetched.append(a))
    named = str(secret) if where == "outside" else "https://example.org/secret.txt"
    body = {
        "fn_index": quick(page, 4),
        "data": [{"path": named} | FILE, [], "mini", "plain"],
        "session_hash": "a",
    }
    with client_of(app) as client:
        got = client.post("/gradio_api/run/predict", json=body)
        fine = client.post("/gradio_api/run/predict", json=body | {"data": ["a cat", [], "mini", "plain"]})
    assert fine.status_code == 200 and got.status_code >= 400 and "password" not in got.text
    assert not list((tmp_path / "state/page").rglob("secret*")) and not fetched


@pytest.mark.slow
def test_only_the_pages_own_copies_are_served_and_never_as_a_page(serve, tmp_path):
    app, _ = serve()
    cache, outputs = tmp_path / "state/page", tmp_path / "out"
    for folder in (cache, outputs):
        (folder / "x").mkdir(parents=True, exist_ok=True)
        for name in ("a.png", "b.html", "c.svg"):
            (folder / "x" / name).write_bytes(b"bytes")
    client = client_of(app)
    for form in ("file=", "file/"):
        got = client.get(f"/gradio_api/{form}{cache}/x/a.png")
        assert got.content == b"bytes" and got.headers["content-type"] == "image/png"
        assert "content-disposition" not in got.headers
        for name in ("b.html", "c.svg"):
            got = client.get(f"/gradio_api/{form}{cache}/x/{name}")
            assert got.headers["content-disposition"].startswith("attachment")
            assert got.headers["content-security-policy"] == security.STRICT_CSP
            assert got.headers["content-type"] == "application/octet-stream"
        others = (
            outputs / "x/a.png",
            cache / "../jobs.sqlite",
            "/etc/passwd",
            "https://example.org/a.png",
        )
        for other in others:
            assert client.get(f"/gradio_api/{form}{other}").status_code in (403, 404), other
    assert client.head(f"/gradio_api/file={cache}/x/a.png").status_code == 200


def test_nothing_is_fetched():
    with pytest.raises(FileForbidden, match="does not fetch"):
        asyncio.run(hardening.refuse_fetch("https://example.org"))


def test_copies_are_made_only_of_what_the_page_may_show(serve, tmp_path):
    _, page = serve()
    folders = {Path(folder) for folder in page.allowed_paths}
    assert {tmp_path / "out", tmp_path / "state"} <= folders and len(folders) == 3


def test_the_page_asks_for_nothing_elsewhere(serve):
    app, _ = serve()
    client, options = client_of(app), theme.page_options()
    assert not any("http" in sheet for sheet in client.get("/config").json()["stylesheets"])  # no web fonts
    for text in (options["css"], options["head"], client.get("/theme.css").text):
        addresses = set(re.findall(r"https?://[^'\" )]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not addresses and "@import" not in text
