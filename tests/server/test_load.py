"""What benchmarks/server_load.py measures, in small: nothing is lost, nothing is left, nothing grows."""

import asyncio
import json

import pytest

from benchmarks import server_load as load

pytestmark = pytest.mark.alone
QUEUE = 8
LARGE = {"width": 256, "height": 256}


@pytest.fixture(scope="module")
def served():
    with load.server("--queue", str(QUEUE), "--device", "cpu") as server:
        yield server


async def pressed(host, port, clients):
    """Send a burst to a busy device, which becomes free when the queue is full."""
    long = {"settings": LARGE | {"prompt": "x", "steps": 150, "images": 16}}
    _, said = await load.ask(host, port, "POST", "/api/jobs", long)
    while not (await load.state_of(host, port))["sampling_step"]:
        await asyncio.sleep(0.01)

    async def release():
        while (await load.state_of(host, port))["job_count"] <= QUEUE:
            await asyncio.sleep(0.01)
        await load.ask(host, port, "DELETE", f"/api/jobs/{json.loads(said)['id']}")

    found, _ = await asyncio.gather(load.burst(host, port, clients), release())
    return found


@pytest.mark.slow
def test_a_burst_is_served_or_refused_and_nothing_else(served):
    host, port, _ = served
    found = asyncio.run(pressed(host, port, 60))
    assert set(found["statuses"]) == {200, 429} and sum(found["statuses"].values()) == 60
    assert found["statuses"][200] >= QUEUE


@pytest.mark.slow
def test_clients_that_disconnect_leave_nothing_running(served, monkeypatch):
    monkeypatch.setattr(load, "TINY", load.TINY | LARGE | {"n_iter": 16})  # 1600 steps
    host, port, _ = served
    found = asyncio.run(load.hang_up(host, port, 5))
    assert found["left_running"] == 0
    # few steps where they take long, and little time where they do not
    assert found["steps_after"]["max"] <= 10 or found["freed_ms"]["max"] <= 250


@pytest.mark.slow
def test_memory_files_and_threads_stay_flat(served):
    host, port, process = served
    samples = asyncio.run(load.mixed(host, port, process, 60, clients=4))
    first, last = samples[1], samples[-1]
    assert last["memory_mib"] < first["memory_mib"] + 60
    assert last["files"] <= first["files"] + 4 and last["threads"] <= first["threads"] + 4
