"""What docs/load.py measures, in small: nothing is lost, nothing is left, nothing grows."""

import asyncio

import pytest

from docs import load


@pytest.fixture(scope="module")
def served():
    with load.server("--queue", "8", "--device", "cpu") as server:
        yield server


@pytest.mark.slow
def test_a_burst_is_done_or_refused_and_nothing_else(served):
    host, port, _ = served
    found = asyncio.run(load.burst(host, port, 60))
    assert set(found["statuses"]) == {200, 429} and sum(found["statuses"].values()) == 60
    assert found["statuses"][200] >= 8


@pytest.mark.slow
def test_clients_that_hang_up_leave_nothing_running(served):
    host, port, _ = served
    found = asyncio.run(load.hang_up(host, port, 5))
    assert found["left_running"] == 0 and found["steps_after"]["max"] <= 10


@pytest.mark.slow
def test_memory_files_and_threads_stay_flat(served):
    host, port, process = served
    samples = asyncio.run(load.mixed(host, port, process, 60, clients=4))
    first, last = samples[1], samples[-1]
    assert last["memory_mib"] < first["memory_mib"] + 60
    assert last["files"] <= first["files"] + 4 and last["threads"] <= first["threads"] + 4
