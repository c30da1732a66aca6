"""Reverse proxies: the path prefix, and whose X-Forwarded headers count."""

import json
import urllib.request

import pytest
from fastapi.testclient import TestClient

from diffusekit.cli.main import run
from diffusekit.errors import UsageError
from diffusekit.server.app import build
from diffusekit.server.proxy import ProxyPolicy, parse_prefix
from diffusekit.settings import ServeSettings
from tests.helpers.proxy import proxying
from tests.helpers.server import QUICK, listening, opened

ASKED = {"prompt": "a cat", "size": "64x64", "steps": 1, "response_format": "url"}
FORWARDED = {
    "X-Forwarded-Host": "images.example.org",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Prefix": "/sd",
    "X-Forwarded-For": "203.0.113.9",
}


def client_from(address: str, jobs, **headers) -> TestClient:
    """A client whose connection comes from an address."""
    app = build(jobs.settings, jobs)
    return TestClient(app, base_url="http://127.0.0.1:7860", client=(address, 1234), headers=headers)


def image_url(client, path="/v1/images/generations") -> str:
    got = client.post(path, json=ASKED)
    assert got.status_code == 200, got.text
    return got.json()["data"][0]["url"]


def get_json(address: str, body=None):
    data = None if body is None else json.dumps(body).encode()
    return json.load(
        urllib.request.urlopen(urllib.request.Request(address, data, {"Content-Type": "application/json"}))
    )


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("proxy")
    with opened(allow_host=["images.example.org"], outputs=f"{folder}/o", state=f"{folder}/s") as jobs:
        yield jobs


@pytest.mark.parametrize(
    ("given", "prefix"),
    [
        ("", ""),
        ("/", ""),
        ("/sd", "/sd"),
        ("sd", "/sd"),
        ("/sd/", "/sd"),
        ("/tools/sd/", "/tools/sd"),
        ("/user/ann%40example.org/sd", "/user/ann@example.org/sd"),
        ("/api/sd", "/api/sd"),
    ],
)
def test_prefixes_are_read_with_and_without_slashes(given, prefix):
    assert parse_prefix(given) == prefix
    assert ProxyPolicy.from_settings(ServeSettings(root_path=given)).root_path == prefix


@pytest.mark.parametrize(
    "bad",
    [
        "//evil.example",
        "/a//b",
        "/..",
        "/a/../b",
        "/sd?x",
        "/sd#x",
        '/"><script>',
        "https://x.org/sd",
        "/a b",
        "/ä",
        "/\\x",
        *("/api", "/v1", "/sdapi", "/outputs", "/gradio_api", "/mcp", "/assets", "/" + "x" * 600),
    ],
)
def test_a_prefix_that_is_no_path_or_hides_a_route_is_refused(bad, jobs):
    with pytest.raises(UsageError, match="`root_path`"):
        ProxyPolicy.from_settings(ServeSettings(root_path=bad))
    got = client_from("127.0.0.1", jobs, **{"X-Forwarded-Prefix": bad.encode()}).get("/v1/models")
    assert got.status_code == 400 and "X-Forwarded-Prefix" in got.json()["error"]["message"]


def test_the_command_line_names_its_flags(capsys):
    assert run(["serve", "--root-path", "/a//b"]) == 2
    assert "--root-path '/a//b'" in capsys.readouterr().err
    assert run(["serve", "--trusted-proxy", "nginx"]) == 2
    assert "--trusted-proxy 'nginx' is not an address" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["/v1/images/generations", "/sd/v1/images/generations"])
def test_a_trusted_proxy_says_where_the_server_is(jobs, path):
    client = client_from("127.0.0.1", jobs, **FORWARDED)
    url = image_url(client, path)
    assert url.startswith("https://images.example.org/sd/outputs/")
    assert client.get(url.removeprefix("https://images.example.org")).headers["content-type"] == "image/png"
    job = client.post("/api/jobs", json={"settings": {"prompt": "x", **QUICK}})
    assert job.headers["location"] == f"/sd/api/jobs/{job.json()['id']}"
    assert client.get(job.headers["location"]).json()["id"] == job.json()["id"]
    assert client.get("/openapi.json").json()["servers"] == [{"url": "/sd"}]
    assert client.get("/sd/sdapi/v1/nothing").json()["detail"]  # the error of that API


def test_an_untrusted_client_cannot_forge_the_headers(jobs):
    evil = FORWARDED | {"X-Forwarded-Host": "evil.example", "X-Gradio-Server": "http://evil.example"}
    client = client_from("198.51.100.7", jobs, **evil)
    assert image_url(client).startswith("http://127.0.0.1:7860/outputs/")
    assert "servers" not in client.get("/openapi.json").json()
    assert client.get("/sd/v1/models").status_code == 404


def test_the_headers_of_one_request_do_not_stay_for_the_next(jobs):
    client_from("127.0.0.1", jobs, **FORWARDED).get("/openapi.json")
    assert "servers" not in client_from("127.0.0.1", jobs).get("/openapi.json").json()


@pytest.mark.parametrize(
    ("host", "forwarded", "status"),
    [
        ("127.0.0.1:7860", "images.example.org", 200),
        ("127.0.0.1:7860", "images.example.org, inner.example", 200),
        ("images.example.org", "", 200),
        ("127.0.0.1:7860", "evil.example", 403),
        ("evil.example", "127.0.0.1", 403),  # a page of a rebound name may send this header
        ("evil.example", "images.example.org", 403),
        ("127.0.0.1:7860", "[::", 403),
    ],
)
def test_both_hosts_must_be_known(jobs, host, forwarded, status):
    headers = {"Host": host} | ({"X-Forwarded-Host": forwarded} if forwarded else {})
    assert client_from("127.0.0.1", jobs, **headers).get("/healthz").status_code == status


def test_the_origin_is_compared_with_the_forwarded_host(jobs):
    client = client_from("127.0.0.1", jobs, **FORWARDED)
    own, other = {"Origin": "https://images.example.org"}, {"Origin": "https://evil.example"}
    assert client.post("/sd/sdapi/v1/interrupt", headers=own).status_code == 200
    assert client.post("/sd/sdapi/v1/interrupt", headers=other).status_code == 403


def test_credentials_are_required_below_the_prefix_too():
    with opened(auth="ann:secret", root_path="/sd") as jobs:
        client = client_from("198.51.100.7", jobs)
        for path in ("/v1/models", "/sd/v1/models", "/sd", "/sd/healthz/", "/sd/sdapi/v1/options"):
            assert client.get(path, follow_redirects=False).status_code in (307, 401), path
        assert client.get("/sd", follow_redirects=True).status_code == 401
        assert client.get("/sd/healthz").status_code == client.get("/healthz").status_code == 200
        known = client_from("198.51.100.7", jobs)
        known.auth = ("ann", "secret")
        assert known.get("/sd/v1/models").json()["data"][0]["id"] == "mini"
        assert known.post("/sd/v1/images/generations", content="x").status_code == 415


def test_the_setting_is_stronger_than_the_header():
    with opened(root_path="/images") as jobs:
        for client in (client_from("127.0.0.1", jobs, **{"X-Forwarded-Prefix": "/sd"}), client_from("192.0.2.1", jobs)):
            for path in ("/v1/images/generations", "/images/v1/images/generations"):
                assert image_url(client, path).startswith("http://127.0.0.1:7860/images/outputs/")


@pytest.mark.parametrize(
    ("trusted", "address", "is_trusted"),
    [
        ("127.0.0.1,::1", "127.0.0.1", True),
        ("127.0.0.1,::1", "::ffff:127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("172.16.0.0/12", "172.17.0.2", True),
        ("172.16.0.0/12", "10.0.0.1", False),
        ("fd00::/8", "fd00::5", True),
        ("*", "203.0.113.1", True),
        ("", "127.0.0.1", False),
        ("*", "", True),
        ("127.0.0.1", "", False),
        ("127.0.0.1", "testclient", False),
    ],
)
def test_proxies_are_trusted_by_address_or_network(trusted, address, is_trusted):
    assert ProxyPolicy.from_settings(ServeSettings(trusted_proxy=trusted)).trusts(address) is is_trusted


def test_gradios_variable_is_read(monkeypatch):
    for given in ("/sd", "https://images.example.org/sd/"):
        monkeypatch.setenv("GRADIO_ROOT_PATH", given)
        assert ProxyPolicy.from_settings(ServeSettings()).root_path == "/sd"
        assert ProxyPolicy.from_settings(ServeSettings(root_path="/other")).root_path == "/other"


@pytest.mark.slow
@pytest.mark.parametrize("strips", [True, False])
def test_clients_of_the_apis_behind_a_real_proxy(strips):
    import openai

    with (
        opened(root_path="sd/") as jobs,
        listening(jobs) as server,
        proxying(server, "/sd", strips=strips, headers=("Host",)) as address,
    ):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="x", max_retries=0)
        more = {"steps": 1, "response_format": "url"}
        made = client.images.generate(prompt="a cat", size="64x64", extra_body=more)
        assert made.data and made.data[0].url
        url = made.data[0].url
        assert url.startswith(f"{address}/outputs/")
        assert urllib.request.urlopen(url).headers["Content-Type"] == "image/png"
        body = {"prompt": "x", "steps": 1, "width": 64, "height": 64}
        assert len(get_json(f"{address}/sdapi/v1/txt2img", body)["images"]) == 1
        job = get_json(f"{address}/api/jobs", {"settings": {"prompt": "x", **QUICK}})
        events = urllib.request.urlopen(f"{address}/api/jobs/{job['id']}/events").read()
        assert b"event: done" in events
