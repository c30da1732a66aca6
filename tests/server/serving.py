"""What the tests of the server share: opened jobs, a client, a real server in a thread, a kind of job
that does nothing but tick."""

import contextlib
import threading
import time
from collections.abc import Iterator

from fastapi.testclient import TestClient
from PIL import Image

from diffusekit.server import kinds
from diffusekit.server.app import build
from diffusekit.server.jobs import Jobs
from diffusekit.server.listening import Server, listen, url
from diffusekit.settings import ServeSettings

QUICK = {"steps": 2, "width": 64, "height": 64, "seed": 7}


@contextlib.contextmanager
def opened(**settings) -> Iterator[Jobs]:
    jobs = Jobs(ServeSettings(**{"device": "cpu"} | settings)).open()
    try:
        yield jobs
    finally:
        jobs.close(6)
        if not jobs._loaded:  # two threads that load a model at once spoil it for the whole process
            jobs._thread.join(180)


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
        thread.join(10)
        assert not thread.is_alive()


def until(condition, seconds: float = 20.0) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


class Ticks:
    """A kind of job that takes `steps` steps, each when it is let (`go`) or at once (`free`)."""

    def __init__(self, *, free: bool = False):
        self.steps = 0
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
            if not self.free:
                assert self._gate.acquire(timeout=20)
            self.steps += 1
            work.progress(step + 1, work.job.settings["steps"])
            work.preview(self._draw)
            yield

    def _draw(self):
        self.drawn += 1
        return [Image.new("RGB", (8, 8))]


def ticking(monkeypatch, *, free: bool = False) -> Ticks:
    ticks = Ticks(free=free)
    monkeypatch.setitem(kinds.KINDS, "tick", kinds.Kind(ticks.check, ticks.run))
    return ticks
