"""What the tests of the server share: opened jobs, a client, a real server in a thread, a kind of job
that does nothing but tick."""

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
from diffusekit.server.jobs.events import JobChannel
from diffusekit.server.jobs.queue import Jobs
from diffusekit.server.serve import Server, listen, url
from diffusekit.settings import ServeSettings

QUICK = {"steps": 2, "width": 64, "height": 64, "seed": 7}
LOADING = 180.0  # seconds that torch, transformers and the model may take on a slow, busy machine
PATIENCE = 60.0  # seconds that anything else may take there: how long a broken test waits


def begun(**settings) -> Jobs:
    """Jobs whose model is in memory, so that no wait is for that."""
    jobs = Jobs(ServeSettings(**{"device": "cpu"} | settings)).open()
    until(lambda: jobs._loaded, LOADING)
    return jobs


@contextlib.contextmanager
def opened(**settings) -> Iterator[Jobs]:
    jobs = begun(**settings)
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
        yield url(listener)
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


def until(condition, seconds: float = PATIENCE) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@contextlib.contextmanager
def paced(hold: int = 0) -> Iterator[None]:
    """Within it jobs of all kinds wait at each step until somebody watches them and has seen it.

    At step `hold` they stay until the end of the `with`.
    """
    over, told = threading.Event(), JobContext.report_progress

    def progress(work: JobContext, step: int, steps: int) -> None:
        told(work, step, steps)
        until(lambda: over.is_set() or work._feed.cancel_requested or _seen(work._feed))
        if step == hold:
            assert over.wait(LOADING)

    with mock.patch.object(JobContext, "report_progress", progress):
        try:
            yield
        finally:
            over.set()


def _seen(feed: JobChannel) -> bool:
    with feed.lock:
        return bool(feed._subscriptions) and all(w._seen == feed.version for w in feed._subscriptions)


class Ticks:
    """A kind of job that takes `steps` steps, each when it is let (`go`) or at once (`free`).

    `asked` counts the steps that the worker came for: one more than `steps` when it waits to be let.
    """

    def __init__(self, *, free: bool = False):
        self.asked = self.steps = 0
        self.drawn = 0
        self.order: list[int] = []
        self._gate = threading.Semaphore(0)
        self.free = free

    def go(self, steps: int = 1) -> None:
        self._gate.release(steps)

    def check(self, values, rules):
        return {"steps": 5, "number": 0} | values

    def run(self, work):
        self.order.append(work.job.settings["number"])
        for step in range(work.job.settings["steps"]):
            self.asked += 1
            if not self.free:
                assert self._gate.acquire(timeout=PATIENCE)
            self.steps += 1
            work.report_progress(step + 1, work.job.settings["steps"])
            work.show_preview(self._draw)
            yield

    def _draw(self):
        self.drawn += 1
        return [Image.new("RGB", (8, 8))]


def ticking(monkeypatch, *, free: bool = False) -> Ticks:
    ticks = Ticks(free=free)
    monkeypatch.setitem(kinds.JOB_TYPES, "tick", kinds.JobType(ticks.check, ticks.run))
    return ticks
