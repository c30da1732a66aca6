"""The security middleware: credentials, hosts, origins, content types, body sizes, and no HTML in responses."""

import base64
import json
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient
from starlette.routing import Mount

from diffusekit.errors import UsageError
from diffusekit.server import security
from diffusekit.server.app import build
from diffusekit.server.security import SecurityPolicy
from diffusekit.settings import ServeSettings
from tests.helpers.server import QUICK, client_of, opened

TOKEN = "correct horse battery staple"
XSS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "javascript:alert(1)",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "</title><script>alert(1)</script>",
    "'-alert(1)-'",
    "<body onload=alert(1)>",
    "<a href=javascript:alert(1)>x</a>",
    "{{7*7}}",
    "${alert(1)}",
    "<!--<script>",
    "<math><mtext><style><img src onerror=alert(1)>",
    "\u003cscript\u003ealert(1)\u003c/script\u003e",
    "]]><script>",
    "<details open ontoggle=alert(1)>",
    "<input autofocus onfocus=alert(1)>",
    "%3Cscript%3Ealert(1)%3C/script%3E",
    "<object data=data:text/html;base64,PHNjcmlwdD4=>",
    "\x00<script>\u202ealert(1)",
]


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def inner() -> FastAPI:
    """An application to be mounted, as the web page is."""
    page = FastAPI()
    page.get("/page")(lambda: PlainTextResponse("hello"))
    page.post("/upload")(lambda: {"taken": True})
    return page


@pytest.fixture
def app():
    with opened(auth="ann:secret", token=TOKEN) as jobs:
        app = build(jobs.settings, jobs, upload_paths=("/ui/upload",))
        app.mount("/ui", inner())
        yield app


def asking(app, **headers) -> TestClient:
    return TestClient(app, base_url="http://127.0.0.1:7860", headers=headers)


def routes(app, prefix=""):
    """(method, path) of every route, whatever it is mounted below."""
    for route in app.routes:
        if isinstance(route, Mount):
            yield from routes(route.app, prefix + route.path)
        elif hasattr(route, "routes") or hasattr(route, "original_router"):
            yield from routes(getattr(route, "original_router", route), prefix)
        else:
            yield from ((method, prefix + route.path) for method in route.methods or ["GET"])


def test_every_route_requires_credentials(app):
    client, found = asking(app), list(routes(app))
    assert len(found) >= 28 and ("POST", "/sdapi/v1/txt2img") in found and ("GET", "/ui/page") in found
    for method, path in [*found, ("GET", "/nothing"), ("OPTIONS", "/v1/models"), ("PUT", "/")]:
        got = client.request(method, path.replace("{", "").replace("}", ""))
        if path == "/healthz":
            assert got.status_code == 200
        else:
            assert got.status_code == 401, (method, path)
            assert got.headers["www-authenticate"].startswith("Basic")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (basic("ann", "secret"), 200),
        (bearer(TOKEN), 200),
        (basic("anyone", TOKEN), 200),
        (basic("ann", "wrong"), 401),
        (basic("secret", "ann"), 401),
        (basic("ann", ""), 401),
        (bearer("ann:secret"), 401),
        (bearer(""), 401),
        (bearer(TOKEN + "x"), 401),
        ({"Authorization": f"Token {TOKEN}"}, 401),
        ({"Authorization": "Basic ann:secret"}, 401),
        ({"Authorization": "Basic \xff\xfe"}, 401),
        ({"Authorization": ""}, 401),
    ],
)
def test_credentials(app, headers, status):
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    assert asking(app).get("/v1/models", headers=encoded).status_code == status


def test_an_open_server_is_refused():
    for host in ("0.0.0.0", "::", "192.168.1.5", "pictures.example.org"):
        with pytest.raises(UsageError, match="anybody"):
            SecurityPolicy.from_settings(ServeSettings(host=host))
        assert SecurityPolicy.from_settings(ServeSettings(host=host, token="x")).keys
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        assert not SecurityPolicy.from_settings(ServeSettings(host=host)).keys
    for bad in ({"auth": "ann"}, {"auth": ":x"}, {"auth": "ann:"}, {"token": " "}):
        with pytest.raises(UsageError) as refused:
            SecurityPolicy.from_settings(ServeSettings(**bad))
        assert "ann" not in refused.value.message
    for origin in ("example.org", "https://example.org/page", "*", "file://x"):
        with pytest.raises(UsageError, match="not a valid origin"):
            SecurityPolicy.from_settings(ServeSettings(allow_origin=(origin,)))


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:7860", 200),
        ("localhost", 200),
        ("[::1]:7860", 200),
        ("pictures.example.org", 200),
        ("PICTURES.example.org:443", 200),
        ("evil.example", 403),
        ("192.168.1.5", 403),
        ("", 403),
        ("169.254.169.254", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("[::", 403),
    ],
)
def test_host_names(host, status):
    with opened(allow_host=["pictures.example.org"]) as jobs:
        client = client_of(jobs)
        assert client.get("/healthz", headers={"Host": host}).status_code == status


def test_an_ip_address_is_a_valid_host_of_a_server_on_all_interfaces():
    with opened(host="0.0.0.0", token=TOKEN) as jobs:
        client = client_of(jobs, headers=bearer(TOKEN))
        assert client.get("/v1/models", headers={"Host": "192.168.1.5:7860"}).status_code == 200
        assert client.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403


def test_requests_from_other_web_pages_are_refused():
    with opened(allow_origin=["https://example.org"]) as jobs:
        client = client_of(jobs)
        own, friend = {"Origin": "http://127.0.0.1:7860"}, {"Origin": "https://example.org"}
        assert client.get("/v1/models").status_code == 200
        assert client.get("/v1/models", headers=own).status_code == 200
        got = client.get("/v1/models", headers=friend)
        assert got.status_code == 200
        assert got.headers["access-control-allow-origin"] == "https://example.org"
        for origin in ("https://evil.example", "null", "", "http://127.0.0.1:9999", "file://"):
            got = client.post("/sdapi/v1/interrupt", headers={"Origin": origin})
            assert got.status_code == 403, origin
            assert "access-control-allow-origin" not in got.headers
        cross = {"Sec-Fetch-Site": "cross-site"}
        assert client.post("/sdapi/v1/interrupt", headers=cross).status_code == 403
        assert client.get("/healthz", headers=cross).status_code == 200


def test_bodies_are_json_and_small(monkeypatch):
    monkeypatch.setattr(security, "BODY_TIMEOUT", 0.3)
    with opened() as jobs:
        client = client_of(jobs)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        body = json.dumps({"prompt": "a cat"})
        for kind in (
            form,
            {"Content-Type": "text/plain"},
            {"Content-Type": "multipart/form-data"},
            {},
        ):
            got = client.post("/sdapi/v1/txt2img", content=body, headers=kind)
            assert got.status_code == 415, kind
        large = "x" * (security.MAX_BODY + 1)
        json_kind = {"Content-Type": "application/json"}
        assert client.post("/sdapi/v1/txt2img", content=large, headers=json_kind).status_code == 413
        chunks = (b"x" * 100_000 for _ in range(20))
        assert client.post("/sdapi/v1/txt2img", content=chunks, headers=json_kind).status_code == 413
        assert client.post("/sdapi/v1/png-info", json={"image": large}).status_code == 415
        assert client.post("/sdapi/v1/interrupt").status_code == 200
        for text in ("{", "[" * 100_000, "null", "[]", "5", '"x"', '{"prompt": 5}', "\xff"):
            got = client.post("/v1/images/generations", content=text, headers=json_kind)
            assert got.status_code in (400, 422), text[:20]
            assert got.json()["error"]["message"]


def test_uploads_of_a_mounted_application_may_be_anything_but_have_a_limit(app, monkeypatch):
    client = asking(app, **bearer(TOKEN))
    assert client.get("/ui/page").headers["content-security-policy"] == security.PAGE_CSP
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post("/ui/upload", content=b"--x--", headers=form).json() == {"taken": True}
    assert client.post("/ui/other", content=b"--x--", headers=form).status_code == 415
    monkeypatch.setattr(security, "MAX_UPLOAD", 10)
    assert client.post("/ui/upload", content=b"x" * 11, headers=form).status_code == 413


@pytest.mark.parametrize("path", ["/v1/models", "/sdapi/v1/options", "/api/jobs", "/healthz", "/nothing"])
def test_every_response_has_security_headers(path):
    with opened() as jobs:
        got = client_of(jobs).get(path)
        assert got.headers["x-content-type-options"] == "nosniff"
        assert "default-src" in got.headers["content-security-policy"]


def test_text_never_becomes_markup():
    with opened() as jobs:
        client = client_of(jobs)
        for text in XSS:
            asked = {"prompt": text, "sampler_name": text, "steps": 1}
            answers = [
                client.post("/sdapi/v1/txt2img", json=asked),
                client.post("/v1/images/generations", json={"prompt": "x", "model": text}),
                client.post("/api/jobs", json={"kind": text[:40], "settings": {}}),
                client.get("/api/jobs/" + text.replace("/", "_").replace("\0", "")),
                client.get("/api/pictures", params={"words": text}),
            ]
            for got in answers:
                assert got.headers["content-type"] == "application/json", text
                assert got.headers["x-content-type-options"] == "nosniff"
                got.json()
        job = client.post("/api/jobs", json={"settings": {"prompt": XSS[0], **QUICK}}).json()
        list(jobs.watch(job["id"]))
        assert client.get("/api/pictures").json()[0]["prompt"] == XSS[0]
        assert not [p for p in Path("outputs").rglob("*") if "<" in p.name]


def test_credentials_are_never_sent(app, monkeypatch):
    client = asking(app, **bearer(TOKEN))
    said = [client.get(path) for _, path in routes(app) if "{" not in path]
    said += [
        client.get("/api/jobs/" + TOKEN),
        client.post("/api/jobs", json={"settings": {"x": 1}}),
    ]
    for got in said:
        assert "secret" not in got.text and (TOKEN not in got.text or "no job" in got.text)


def test_only_openapi_json_is_served_as_documentation():
    with opened() as jobs:
        client = client_of(jobs)
        assert "/v1/images/generations" in client.get("/openapi.json").json()["paths"]
        assert client.get("/docs").status_code == client.get("/redoc").status_code == 404


def test_without_the_apis_there_is_only_health():
    with opened(no_api=True) as jobs:
        app = build(jobs.settings, jobs)
        found = {path for _, path in routes(app)}
        assert found == {"/healthz", "/readyz", "/metrics", "/openapi.json"}
        client = client_of(jobs)
        for path in ("/sdapi/v1/options", "/v1/models", "/api/jobs", "/outputs/x.png", "/mcp"):
            assert client.get(path).status_code == 404
        assert client.get("/healthz").status_code == 200
