"""The tool at /mcp, called by the client of the `mcp` package."""

import asyncio
import base64
import contextlib
import io

import pytest
from PIL import Image

from diffusekit import metadata
from diffusekit.cli.main import run
from diffusekit.server.app import build
from diffusekit.server.routes import mcp_tool as tool
from tests.helpers.server import QUICK, client_of, listening, opened, paced, ticking, until

pytest.importorskip("mcp")
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}},
}
ACCEPTING = {"Accept": "application/json, text/event-stream"}


@contextlib.asynccontextmanager
async def session(url, **headers):
    import httpx
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async with (
        httpx.AsyncClient(headers=headers, timeout=60) as client,
        streamable_http_client(f"{url}/mcp", http_client=client) as (read, write, _),
        ClientSession(read, write) as found,
    ):
        await found.initialize()
        yield found


def test_an_assistant_generates_an_image(tmp_path):
    seen = []

    async def told(progress, total, message):
        seen.append((progress, total))

    async def ask(url):
        async with session(url, Authorization="Bearer key") as found:
            tools = (await found.list_tools()).tools
            given = {"prompt": "a red cat", **QUICK, "negative_prompt": "a dog", "guidance_scale": 1, "sampler": None}
            made = await found.call_tool("generate", given, progress_callback=told)
            wrong = await found.call_tool("generate", given | {"steps": 200})
            other = await found.call_tool("remove", {})
            return tools, made, wrong, other

    with opened(token="key", mcp=True) as jobs, listening(jobs) as url, paced():
        tools, made, wrong, other = asyncio.run(asyncio.wait_for(ask(url), 120))
        (job,) = jobs.list()
    (only,) = tools
    assert only.name == "generate" and only.inputSchema["required"] == ["prompt"]
    taken = only.inputSchema["properties"]
    assert {"steps", "seed", "sampler"} <= set(taken) and not {"device", "batch"} & set(taken)
    assert taken["model"]["enum"] == ["mini"]
    picture, text = made.content
    assert not made.isError and f"/outputs/{job.pictures[0]}; seed 7" in text.text
    assert "warning: negative_prompt has no effect" in text.text
    kept = (jobs.outputs / job.pictures[0]).read_bytes()
    assert base64.b64decode(picture.data) == kept and picture.mimeType == "image/png"
    assert Image.open(io.BytesIO(kept)).size == (64, 64)
    assert metadata.read(jobs.outputs / job.pictures[0]).record is not None
    assert seen and all(total == QUICK["steps"] for _, total in seen)
    assert wrong.isError and "steps asks for 200" in wrong.content[0].text
    assert other.isError and "unknown tool 'remove'" in other.content[0].text


def test_leaving_cancels(monkeypatch):
    ticks = ticking(monkeypatch)

    async def ask(jobs, url):
        async with session(url) as found:
            call = asyncio.ensure_future(found.call_tool("generate", {"prompt": "x"}))
            await asyncio.to_thread(until, lambda: (job := jobs.running_job) and jobs.channel(job.id).subscribers)
            ticks.go()
            await asyncio.to_thread(until, lambda: ticks.requested == 2)
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call

    with opened(mcp=True) as jobs, listening(jobs) as url:
        whole = jobs.submit_async
        monkeypatch.setattr(jobs, "submit_async", lambda kind, given, owner: whole("tick", given, owner=owner))
        asyncio.run(asyncio.wait_for(ask(jobs, url), 120))
        until(lambda: jobs.channel(jobs.list()[0].id).cancel_requested)
        ticks.go(5)
        until(lambda: jobs.list()[0].is_finished)
        assert jobs.list()[0].state == "cancelled" and ticks.steps == 2


def test_the_tool_is_behind_the_security_middleware():
    with opened(auth="ann:secret", mcp=True) as jobs, client_of(jobs) as client:
        assert client.post("/mcp", json=HELLO, headers=ACCEPTING).status_code == 401
        key = {"Authorization": "Basic " + base64.b64encode(b"ann:secret").decode()} | ACCEPTING
        got = client.post("/mcp", json=HELLO, headers=key)
        assert got.status_code == 200 and "diffusekit" in got.text
        assert got.headers["x-content-type-options"] == "nosniff"
        for more in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
            assert client.post("/mcp", json=HELLO, headers=key | more).status_code == 403
        assert client.post("/mcp", content=b"{}", headers=key).status_code == 415
        for method in ("GET", "DELETE"):  # nothing to listen for: no stream stays open
            assert client.request(method, "/mcp", headers=key).status_code == 405


def test_the_tool_exists_only_with_the_setting(monkeypatch, capsys):
    with opened() as jobs:
        assert "/mcp" not in {getattr(route, "path", "") for route in build(jobs.settings, jobs).routes}
    monkeypatch.setattr(tool, "find_spec", lambda name: None)
    assert run(["serve", "--mcp", "--port", "0"]) == 2
    said = capsys.readouterr()
    assert "pip install 'diffusekit[mcp]'" in said.err and said.out == ""
