"""Real clients against a real server: webuiapi, openai, and plain sockets that disconnect."""

import base64
import io
import json
import re
import shlex
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from diffusekit.pipeline import generate
from tests.helpers import ROOT
from tests.helpers.server import QUICK, listening, opened, paced, ticking, until


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def raw_post(url: str, path: str, body: dict) -> socket.socket:
    """Send a request and do not read the response yet."""
    text = json.dumps(body)
    connection = socket.create_connection(("127.0.0.1", port_of(url)), timeout=20)
    connection.sendall(
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(text)}\r\n\r\n{text}".encode()
    )
    return connection


def answer(connection: socket.socket) -> bytes:
    """Read one whole response, in any number of pieces; return its header."""
    got = b""
    while b"\r\n\r\n" not in got:
        got += connection.recv(4096)
        assert got
    head, _, body = got.partition(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head.lower())[1])
    while len(body) < length:
        body += (more := connection.recv(4096))
        assert more
    return head


@pytest.mark.slow
def test_webuiapi(monkeypatch):
    import webuiapi

    with opened(auth="ann:secret") as jobs, listening(jobs) as url:
        stranger = webuiapi.WebUIApi(host="127.0.0.1", port=port_of(url))
        assert "detail" in stranger.get_options()
        api = webuiapi.WebUIApi(
            host="127.0.0.1",
            port=port_of(url),
            sampler="Euler a",
            username="ann",
            password="secret",
        )
        assert api.util_get_model_names() == ["mini"] == [api.util_get_current_model()]
        assert "DPM++ 2M" in api.util_get_sampler_names()
        assert "karras" in api.util_get_scheduler_names()
        api.util_set_model("mini")
        api.util_wait_for_ready(check_interval=0.05)
        result = api.txt2img(prompt="a red cat", seed=7, steps=2, width=64, height=64, batch_size=2)
        expected = generate("a red cat", images=2, sampler="euler_a", guidance_scale=7.0, device="cpu", **QUICK)
        assert [i.tobytes() for i in result.images] == [p.image.tobytes() for p in expected]
        assert result.info["all_seeds"] == [7, 8] and result.parameters["prompt"] == "a red cat"
        assert api.png_info(expected[0].image).info == ""
        assert api.get_progress()["state"]["job_count"] == 0
        api.interrupt(), api.skip()
        assert api.get_embeddings() == {"loaded": {}, "skipped": {}}
        assert api.get_upscalers()[0]["name"] == "None"
        assert api.get_sd_vae() == api.get_latent_upscale_modes() == []
        with pytest.raises(RuntimeError, match="422"):
            api.txt2img(prompt="x", sampler_name="Best")


@pytest.mark.slow
def test_openai_client():
    import openai

    with opened(token="key") as jobs, listening(jobs) as url:
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{url}/v1", api_key="wrong").models.list()
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="key", max_retries=0)
        assert [model.id for model in client.models.list()] == ["mini"]
        more = {"steps": 2, "seed": 7}
        made = client.images.generate(
            prompt="a red cat", model="mini", size="64x64", n=1, response_format="b64_json", extra_body=more
        )
        image = Image.open(io.BytesIO(base64.b64decode(made.data[0].b64_json)))
        expected = generate("a red cat", device="cpu", **QUICK)[0]
        assert image.tobytes() == expected.image.tobytes()
        with paced():
            stream = client.images.generate(
                prompt="a red cat",
                model="mini",
                size="64x64",
                stream=True,
                partial_images=1,
                extra_body=more | {"steps": 10},
            )
            kinds = [event.type for event in stream]
        assert kinds == ["image_generation.partial_image", "image_generation.completed"]
        with pytest.raises(openai.NotFoundError, match="sd-v9"):
            client.images.generate(prompt="x", model="sd-v9")
        usual = client.images.generate(prompt="x", model="gpt-image-1", size="64x64", n=1, extra_body=more)
        reply = usual.to_dict()
        assert reply["model"] == "mini" and reply["size"] == "64x64" and "gpt-image-1" in str(reply["warnings"])
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            client.images.generate(prompt="x", size="big")
        assert refused.value.param == "size"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/sdapi/v1/txt2img", {"n_iter": 8}),
        ("/v1/images/generations", {"n": 8}),
        ("/v1/images/generations", {"n": 8, "stream": True, "partial_images": 2}),
    ],
)
def test_disconnecting_frees_the_device(path, more):
    with opened() as jobs, listening(jobs) as url:
        asked = {"prompt": "a cat", "steps": 100, **more}
        running, waiting = raw_post(url, path, asked), raw_post(url, path, asked)
        until(lambda: jobs.running_job and jobs.running_job.step >= 3 and jobs.queue_length == 1)
        until(lambda: all(channel.subscribers for channel in jobs.unfinished))
        first = jobs.running_job
        waiting.close()
        until(lambda: jobs.queue_length == 0)
        before = jobs.running_job.step
        running.close()
        until(lambda: jobs.running_job is None)
        assert jobs.get(first.id).state == "cancelled"
        assert jobs.get(first.id).step <= before + 100  # of 800; how soon is measured in benchmarks/server_load.py
        until(lambda: not jobs.unfinished)
        assert jobs.statistics.jobs["cancelled"] == 2


def test_watching_and_leaving_does_not_cancel(monkeypatch):
    ticks = ticking(monkeypatch)
    with opened() as jobs, listening(jobs) as url:
        job = jobs.submit("tick", {})
        watcher = socket.create_connection(("127.0.0.1", port_of(url)), timeout=20)
        watcher.sendall(f"GET /api/jobs/{job.id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        told = b""
        while b"event:" not in told:  # in as many pieces as the network likes
            told += watcher.recv(4096)
            assert told
        watcher.close()
        ticks.go(5)
        until(lambda: jobs.get(job.id).is_finished)
        assert jobs.get(job.id).state == "done"
        until(lambda: not jobs.unfinished)


def test_a_waiting_client_gets_a_503_when_the_server_stops(monkeypatch):
    ticks = ticking(monkeypatch)
    with opened() as jobs, listening(jobs) as url:
        jobs.submit("tick", {})
        waiting = raw_post(url, "/sdapi/v1/txt2img", {"prompt": "x", "steps": 1})
        until(lambda: jobs.queue_length == 1 and jobs.unfinished[-1].subscribers)
        closing = threading.Thread(target=jobs.close, args=(5.2,))
        closing.start()
        until(lambda: not jobs.is_ready and jobs.unfinished[0].cancel_requested)
        ticks.go()
        closing.join()
        assert b"503 Service Unavailable" in answer(waiting)


def test_a_slow_body_times_out(monkeypatch):
    monkeypatch.setattr("diffusekit.server.security.BODY_TIMEOUT", 0.3)
    with opened() as jobs, listening(jobs) as url:
        drip = socket.create_connection(("127.0.0.1", port_of(url)), timeout=20)
        drip.sendall(
            b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\n\r\n{"
        )
        assert b" 408 " in answer(drip)


@pytest.mark.slow
def test_headers_have_limits_of_size_and_time(monkeypatch):
    with opened() as jobs, listening(jobs) as url:
        long = socket.create_connection(("127.0.0.1", port_of(url)), timeout=20)
        with pytest.raises(ConnectionError):
            while True:  # the system takes megabytes that the server has not looked at
                long.sendall(b"GET /healthz HTTP/1.1\r\nX-Long: " + b"x" * 10_000)
        monkeypatch.setattr("diffusekit.server.serve.HEADER_TIMEOUT", 0.3)
        for start in (b"", b"GET /healthz HTTP/1.1\r\nHost:"):
            slow = socket.create_connection(("127.0.0.1", port_of(url)), timeout=20)
            slow.sendall(start)
            assert slow.recv(100) == b""
        body = {"image": "x" * 300_000}
        with raw_post(url, "/sdapi/v1/png-info", body) as large:
            assert b" 415 " in answer(large)
            large.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b" 200 " in answer(large)
        time.sleep(0.4)
        with raw_post(url, "/sdapi/v1/txt2img", {"prompt": "x", **QUICK, "steps": 12}) as patient:
            assert b" 200 " in answer(patient)


@pytest.mark.slow
def test_every_block_of_docs_serving_runs(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "serving.md").read_text()
    python = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    with (
        opened(outputs=str(tmp_path / "o"), state=str(tmp_path / "s")) as jobs,
        listening(jobs) as url,
    ):
        port, job = str(port_of(url)), jobs.submit("generate", {"prompt": "x", **QUICK})
        for i, block in enumerate(python):
            Path(tmp_path, str(i)).mkdir()
            monkeypatch.chdir(tmp_path / str(i))
            exec(compile(block.replace("7860", port), f"block {i}", "exec"), {})
        lines = [line for line in text.splitlines() if line.startswith("curl ")]
        assert len(python) == 4 and len(lines) == 8
        for line in lines:
            words = shlex.split(line.replace("7860", port).replace("ID", job.id), comments=True)
            done = subprocess.run([*words, "-s"], capture_output=True, text=True, timeout=60)
            assert done.returncode == 0 and done.stdout, line
            over = "-X" in words
            assert ('"error"' in done.stdout) == over, line
