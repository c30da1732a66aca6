"""One visitor, one signal or one long job does not disturb the others."""

import asyncio
import os
import subprocess
import sys
import threading

import pytest

from diffusekit.config import resolve_settings
from diffusekit.server.jobs import invert, queue
from diffusekit.settings import InvertSettings, ServeSettings
from tests.helpers import ROOT
from tests.helpers.server import client_of, opened, ticking, until


def test_a_chat_client_interrupts_images_but_not_a_training(monkeypatch):
    ticks = ticking(monkeypatch)
    with opened() as jobs, client_of(jobs) as client:
        job = jobs.submit("tick", {})
        ticks.go()
        until(lambda: jobs.get(job.id).step == 1)
        for path in ("interrupt", "skip"):
            assert client.post(f"/sdapi/v1/{path}").status_code == 200
        ticks.go(4)
        until(lambda: jobs.get(job.id).is_finished)
        assert jobs.get(job.id).state == "done"


def test_a_training_does_not_change_the_seconds_per_image(monkeypatch):
    ticks = ticking(monkeypatch, free=True)
    with opened() as jobs:
        statistics = jobs.statistics
        statistics.images, statistics.image_seconds = 4, 8.0
        job = jobs.submit("tick", {"steps": 3})
        until(lambda: jobs.get(job.id).is_finished and statistics.busy_seconds > 0)
        assert statistics.image_seconds == 8.0 and statistics.seconds_per_image == 2.0
        assert statistics.estimate_wait(jobs.running_job) == 2
        assert ticks.steps == 3


def test_a_server_that_stops_in_a_long_step_requeues_the_job(monkeypatch):
    ticks = ticking(monkeypatch)
    monkeypatch.setattr(queue, "REQUEUE_TIMEOUT", 0.1)
    with opened() as jobs:
        job = jobs.submit("tick", {})
        until(lambda: jobs.running_job is not None)
        saved = []
        monkeypatch.setattr(jobs.store, "save", saved.append)
        jobs.close(0.2)  # the worker waits at the gate
        assert saved[-1].id == job.id and saved[-1].state == "queued" and saved[-1].attempts == 0
        ticks.go(5)


def test_a_run_that_is_stopped_with_the_server_waits_for_the_signal(monkeypatch):
    assert next(invert.wait_for_signal(143), "waits") is None
    assert list(invert.wait_for_signal(5)) == []
    monkeypatch.setattr(invert, "TIMEOUT", 0.0)
    assert list(invert.wait_for_signal(130)) == []


def test_a_signal_to_the_terminal_does_not_reach_the_training_process(tmp_path, monkeypatch):
    monkeypatch.setattr(invert, "CHILD_CODE", "import sys; sys.stdin.read()")
    with invert.training_process(tmp_path / "r.toml", tmp_path, tmp_path / "err") as child:
        assert os.getpgid(child.pid) != os.getpgid(0)
    assert child.returncode == 0


def test_a_client_that_leaves_before_its_job_is_saved_leaves_no_job(monkeypatch):
    ticks = ticking(monkeypatch)
    with opened() as jobs:
        save, go = jobs.store.save, threading.Event()

        def save_slowly(job):
            go.wait(20)
            save(job)

        monkeypatch.setattr(jobs.store, "save", save_slowly)

        async def visit():
            asking = asyncio.ensure_future(jobs.submit_async("tick", {"steps": 1000}))
            await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            go.set()
            while not (found := jobs.list()) or found[0].state != "cancelled":
                ticks.go()
                await asyncio.sleep(0.01)

        asyncio.run(asyncio.wait_for(visit(), 30))


def test_the_servers_token_is_not_the_name_of_a_learned_token(monkeypatch):
    monkeypatch.setenv("DIFFUSEKIT_TOKEN", "correct horse battery staple")
    assert resolve_settings(ServeSettings, "serve", {}).token == "correct horse battery staple"
    assert resolve_settings(InvertSettings, "invert", {"name": "x"}).token == "S*"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ({"DIFFUSEKIT_HOST": "0.0.0.0"}, 2, "anybody could use a server on 0.0.0.0"),
        ({"DIFFUSEKIT_MODEL": "nonsense"}, 8, "nonsense"),
    ],
)
def test_the_launcher_reports_errors(tmp_path, given, code, said):
    done = subprocess.run(
        [sys.executable, str(ROOT / "gradio_app.py")],
        cwd=tmp_path,
        env=os.environ | given,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("error: ") and said in done.stderr and "\nhint: " in done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.iterdir())
