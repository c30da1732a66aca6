"""Fetching a model from a hub: a small one of our own on this machine, with both precisions and a pickle."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "b" * 40


class Hub(BaseHTTPRequestHandler):
    """As much of huggingface.co as a download needs."""

    folder: Path
    asked: list[str]

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        type(self).asked.append(path)
        if path.startswith("/api/models/someone/tiny"):
            files = [str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file()]
            if "/tree/" in path:
                rows = [
                    {
                        "type": "file",
                        "path": f,
                        "size": (self.folder / f).stat().st_size,
                        "oid": "0" * 40,
                    }
                    for f in files
                ]
                return self._answer(json.dumps(rows).encode())
            info = {
                "_id": "1",
                "id": "someone/tiny",
                "sha": COMMIT,
                "private": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
            }
            return self._answer(json.dumps(info | {"siblings": [{"rfilename": f} for f in files]}).encode())
        prefix = f"/someone/tiny/resolve/{COMMIT}/"
        file = self.folder / path.removeprefix(prefix)
        if path.startswith(prefix) and file.is_file():
            return self._answer(file.read_bytes())
        self.send_error(404)

    do_HEAD = do_GET

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hub(families, tmp_path):
    """A hub with one model: yields its handler class and the environment variables that point to it."""
    import shutil

    folder = Path(shutil.copytree(families["sd1"], tmp_path / "repo"))
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copy(weights, weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    weights.with_name("diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "pipeline.py").write_text("raise SystemExit('run')")
    handler = type("OurHub", (Hub,), {"folder": folder, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
    environment |= {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "home"),
    }
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    yield handler, environment
    server.shutdown()


def generate(environment, *more):
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "diffusekit",
            "generate",
            "a cat",
            "--steps",
            "1",
            "--device",
            "cpu",
            "--model",
            "someone/tiny",
            "-o",
            "out/",
            *more,
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_a_model_is_fetched_once_and_only_what_is_needed(hub):
    handler, environment = hub
    done = generate(environment)
    assert done.returncode == 0, done.stderr
    fetched = {path.split("/resolve/")[1][41:] for path in handler.asked if "/resolve/" in path}
    assert {
        "model_index.json",
        "unet/diffusion_pytorch_model.safetensors",
        "tokenizer/tokenizer.json",
    } <= fetched
    assert not any(name.endswith((".bin", ".py")) or "fp16" in name for name in fetched)
    handler.asked.clear()
    assert generate(environment).returncode == 0
    assert handler.asked == []  # it is here: nobody is asked
    offline = environment | {"HF_HUB_OFFLINE": "1"}
    assert generate(offline).returncode == 0


@pytest.mark.slow
def test_a_model_that_is_not_there(hub):
    _, environment = hub
    done = generate(environment, "--model", "someone/else")
    assert done.returncode == 8 and "could not be fetched" in done.stderr and "mini" in done.stderr
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.slow
def test_a_hub_out_of_reach(hub):
    _, environment = hub
    done = generate(environment | {"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert done.returncode == 8 and "could not be fetched" in done.stderr
    assert len(done.stderr.splitlines()) == 2
