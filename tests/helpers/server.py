"""What the tests of the server share: opened jobs, a client, a real server in a thread, a job type that only counts."""

import contextlib
import threading
import time
from collections.abc import Iterator
from unittest import mock

from fastapi.testclient import TestClient
from PIL import Image

from diffusekit.server.app import build
from diffusekit.server.jobs import kinds
from diffusekit.server.jobs.context import JobContext
from diffusekit.server.jobs.queue import Jobs
from diffusekit.server.serve import Server, address_of, listen
from diffusekit.settings import ServeSettings

QUICK = {"steps": 2, "width": 64, "height": 64, "seed": 7}
LOADING = 180.0  # seconds that torch, transformers and the model may take on a slow, busy machine
PATIENCE = 60.0  # seconds that anything else may take there: how long a broken test waits


def open_jobs(**settings) -> Jobs:
    """Jobs whose model is in memory, so that no test waits for that."""
    jobs = Jobs(ServeSettings(**{"device": "cpu"} | settings)).open()
    until(lambda: jobs.is_ready, LOADING)
    return jobs


@contextlib.contextmanager
def opened(**settings) -> Iterator[Jobs]:
    jobs = open_jobs(**settings)
    try:
        yield jobs
    finally:
        jobs.close(6)


def client_of(jobs: Jobs, **more) -> TestClient:
    return TestClient(build(jobs.settings, jobs), base_url="http://127.0.0.1:7860", **more)


@contextlib.contextmanager
def listening(jobs: Jobs) -> Iterator[str]:
    """A real server on a free port, in a thread."""
    listener = listen("127.0.0.1", 0)
    server = Server(build(jobs.settings, jobs), jobs)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        until(lambda: server.started)
        yield address_of(listener)
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


def until(condition, seconds: float = PATIENCE) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.005)


@contextlib.contextmanager
def paced(hold: int = 0) -> Iterator[None]:
    """Let jobs of all kinds wait at each step until a subscriber has read it.

    At step `hold` they wait until the end of the `with`.
    """
    over, report_progress = threading.Event(), JobContext.report_progress

    def wait_for_subscribers(context: JobContext, step: int, steps: int) -> None:
        report_progress(context, step, steps)
        channel = context.channel
        until(lambda: over.is_set() or channel.cancel_requested or channel.is_delivered)
        if step == hold:
            assert over.wait(LOADING)

    with mock.patch.object(JobContext, "report_progress", wait_for_subscribers):
        try:
            yield
        finally:
            over.set()


class Ticks:
    """A job type that takes `steps` steps, each when the test calls `go`, or at once (`free`).

    `requested` counts the steps that the worker has begun: one more than `steps` while it waits for `go`.
    """

    def __init__(self, *, free: bool = False):
        self.requested = self.steps = 0
        self.drawn = 0
        self.order: list[int] = []
        self._gate = threading.Semaphore(0)
        self.free = free

    def go(self, steps: int = 1) -> None:
        self._gate.release(steps)

    def check(self, values, server):
        return {"steps": 5, "number": 0} | values

    def run(self, context: JobContext):
        self.order.append(context.job.settings["number"])
        for step in range(context.job.settings["steps"]):
            self.requested += 1
            if not self.free:
                assert self._gate.acquire(timeout=PATIENCE)
            self.steps += 1
            context.report_progress(step + 1, context.job.settings["steps"])
            context.show_preview(self._draw)
            yield

    def _draw(self):
        self.drawn += 1
        return [Image.new("RGB", (8, 8))]


def ticking(monkeypatch, *, free: bool = False) -> Ticks:
    ticks = Ticks(free=free)
    monkeypatch.setitem(kinds.JOB_TYPES, "tick", kinds.JobType(ticks.check, ticks.run))
    return ticks
