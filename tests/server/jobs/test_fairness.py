"""What one visitor, one signal or one long job may not do to the others."""

import asyncio
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from diffusekit.config import resolve_settings
from diffusekit.errors import UsageError
from diffusekit.server.jobs import invert
from diffusekit.server.jobs import queue as queue
from diffusekit.server.jobs.job import Job
from diffusekit.settings import InvertSettings, ServeSettings
from tests.helpers import ROOT
from tests.helpers.server import client_of, opened, ticking, until


def test_a_chat_client_stops_pictures_and_no_training(monkeypatch):
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


def test_a_picture_takes_no_longer_because_somebody_trained(monkeypatch):
    ticks = ticking(monkeypatch, free=True)
    with opened() as jobs:
        jobs.counts["pictures"], jobs.drawing = 4, 8.0
        job = jobs.submit("tick", {"steps": 3})
        until(lambda: jobs.get(job.id).is_finished and jobs.seconds > 0)
        assert jobs.drawing == 8.0 and jobs.seconds_per_image == 2.0 and jobs.retry_after() == 2
        assert ticks.steps == 3


def test_a_server_that_stops_in_a_long_step_begins_the_job_again(monkeypatch):
    ticks = ticking(monkeypatch)
    monkeypatch.setattr(queue, "REQUEUE_TIMEOUT", 0.1)
    with opened() as jobs:
        job = jobs.submit("tick", {})
        until(lambda: jobs.running_job is not None)
        store = jobs._store
        kept = []
        monkeypatch.setattr(store, "save", kept.append)
        jobs.close(0.2)  # the worker waits at the gate
        assert kept[-1].id == job.id and kept[-1].state == "queued" and kept[-1].attempts == 0
        ticks.go(5)


def test_a_process_that_is_stopped_with_the_server_waits_to_be_put_down(monkeypatch):
    assert next(invert._wait_for_signal(143), "waits") is None
    assert list(invert._wait_for_signal(5)) == []
    monkeypatch.setattr(invert, "TIMEOUT", 0.0)
    assert list(invert._wait_for_signal(130)) == []


def test_a_signal_to_the_terminal_does_not_reach_what_learns(tmp_path, monkeypatch):
    monkeypatch.setattr(invert, "_CODE", "import sys; sys.stdin.read()")
    with invert._training_process(tmp_path / "r.toml", tmp_path, tmp_path / "err") as child:
        assert os.getpgid(child.pid) != os.getpgid(0)
    assert child.returncode == 0


@pytest.mark.parametrize("state", ["queued", "running", "done", "failed"])
def test_a_name_is_learned_once_at_a_time(state):
    from diffusekit.server.ui.tabs.learn_handlers import Lab

    lab = SimpleNamespace(_job=lambda name: Job("1", "invert", {"name": name}, state=state))
    if state in ("queued", "running"):
        with pytest.raises(UsageError, match="my_cat is being learned already"):
            Lab._idle(lab, "my_cat")
    else:
        Lab._idle(lab, "my_cat")


def test_who_leaves_before_a_job_is_written_down_leaves_none(monkeypatch):
    ticks = ticking(monkeypatch)
    with opened() as jobs:
        written, go = jobs._submit, threading.Event()

        def slowly(*given):
            go.wait(20)
            return written(*given)

        monkeypatch.setattr(jobs, "_submit", slowly)

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


def test_the_servers_key_is_no_name_for_what_is_learned(monkeypatch):
    monkeypatch.setenv("DIFFUSEKIT_TOKEN", "correct horse battery staple")
    assert resolve_settings(ServeSettings, "serve", {}).token == "correct horse battery staple"
    assert resolve_settings(InvertSettings, "invert", {"name": "x"}).token == "S*"


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ({"DIFFUSEKIT_HOST": "0.0.0.0"}, 2, "anybody could use this server"),
        ({"DIFFUSEKIT_MODEL": "nonsense"}, 8, "nonsense"),
    ],
)
def test_the_launcher_says_what_is_wrong(tmp_path, given, code, said):
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
