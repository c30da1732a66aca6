"""`diffusekit serve` as a process: start-up and shutdown."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffusekit.cli.main import run
from diffusekit.server.jobs.store import JobStore
from tests.helpers.server import until

COMMAND = [sys.executable, "-m", "diffusekit", "serve", "--port", "0", "--device", "cpu"]


@pytest.fixture
def served():
    """A server process without the page, which would take longer to start, and its address."""
    with running(*COMMAND, "--no-ui") as server:
        yield server


@contextlib.contextmanager
def running(*command: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), process.communicate()
        until(lambda: status(f"{url}/readyz") == 200, 180)
        yield process, url
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            assert pipe
            pipe.close()


def status(url: str) -> int:
    try:
        return urllib.request.urlopen(url, timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:  # it has gone
        return 0


def post(url: str, body: dict) -> dict:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=30))


def get(url: str):
    return json.load(urllib.request.urlopen(url, timeout=10))


def states() -> list[str]:
    store = JobStore(Path(".diffusekit/jobs.sqlite"))
    found = [job.state for job in reversed(store.list_newest(10))]
    store.close()
    return found


def test_help_imports_no_heavy_module():
    code = (
        "import sys; from diffusekit.cli.main import run; run(['serve', '--help']);"
        "sys.exit(bool({'torch', 'fastapi', 'uvicorn', 'gradio'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_an_open_server_is_refused_before_torch_is_there(capsys):
    code = (
        "import sys; from diffusekit.cli.main import run;"
        "code = run(['serve', '--host', '0.0.0.0']); sys.exit(99 if 'torch' in sys.modules else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and "hint: set DIFFUSEKIT_AUTH" in done.stderr


def test_settings_that_cannot_be_served_end_at_once(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert run(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert run(["serve", "--model", "no-such-model"]) == 8
    assert run(["serve", "--host", "256.1.1.1", "--token", "x"]) == 2
    assert run(["serve", "--no-ui", "--no-api"]) == 2
    assert run(["serve", "--mcp", "--no-api"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("hint: ") == 5
    assert "--no-api and --no-ui together leave nothing to serve" in said.err


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT], ids=lambda sign: sign.name)
def test_an_open_page_does_not_delay_the_shutdown(sign):
    """A page's heartbeat and a job's events are streams that do not end by themselves."""
    with running(*COMMAND) as (process, url):
        port = int(url.rpartition(":")[2])
        streams = []
        for _ in range(2):
            stream = socket.create_connection(("127.0.0.1", port), timeout=20)
            stream.sendall(b"GET /gradio_api/heartbeat/abc HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            seen = b""
            while b"ALIVE" not in seen:
                seen += stream.recv(4096)
            streams.append(stream)
        began = time.monotonic()
        process.send_signal(sign)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 128 + sign and time.monotonic() - began < 10
        assert "Traceback" not in said and "Cancel" not in said, said
        for stream in streams:
            stream.close()


@pytest.mark.slow
def test_sigterm_finishes_or_requeues_the_job_and_a_restart_continues(served):
    process, url = served
    settings = {"width": 64, "height": 64, "images": 4, "seed": 7}
    for i, steps in enumerate((40, 20, 20)):  # the first is long enough to be met on its way
        post(f"{url}/api/jobs", {"settings": settings | {"prompt": f"cat {i}", "steps": steps}})
    until(lambda: get(f"{url}/api/jobs")[-1]["state"] != "queued", 60)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    until(lambda: process.poll() is not None or status(f"{url}/readyz") == 503)
    assert process.wait(30) == 143 and time.monotonic() - began < 30
    found = states()
    done = found.count("done")
    assert done < 3 and found == ["done"] * done + ["queued"] * (3 - done)
    again = subprocess.Popen([*COMMAND, "--no-ui"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert again.stdout
        url = again.stdout.readline().strip()
        until(lambda: {job["state"] for job in get(f"{url}/api/jobs")} == {"done"}, 480)
        assert len(list(Path("outputs").rglob("*.png"))) == 12
    finally:
        again.send_signal(signal.SIGINT)
        assert again.wait(30) == 130
        again.communicate()


@pytest.mark.slow
def test_after_sigkill_nothing_is_lost_and_nothing_is_there_twice(served):
    process, url = served
    settings = {"width": 64, "height": 64, "images": 6, "seed": 7}
    for i, steps in enumerate((10, 30)):  # the second is far from over when the first has two
        post(f"{url}/api/jobs", {"settings": settings | {"prompt": f"cat {i}", "steps": steps}})
    until(lambda: len(get(f"{url}/api/jobs")[-1]["pictures"]) >= 2, 60)
    process.kill()
    process.wait()
    assert "done" not in states()[1:]
    again = subprocess.Popen([*COMMAND, "--no-ui"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert again.stdout
        url = again.stdout.readline().strip()
        until(lambda: {job["state"] for job in get(f"{url}/api/jobs")} == {"done"}, 480)
        made = [name for job in get(f"{url}/api/jobs") for name in job["pictures"]]
        there = [p.relative_to("outputs").as_posix() for p in Path("outputs").rglob("*.png")]
        assert sorted(made) == sorted(there) and len(made) == 12
    finally:
        again.kill()
        again.communicate()
