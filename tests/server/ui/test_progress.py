"""Jobs followed for one visitor."""

import asyncio

import pytest

from diffusekit.errors import DiffusekitError, Overloaded
from diffusekit.server.jobs.queue import Jobs
from diffusekit.server.jobs.worker import Worker
from diffusekit.server.ui import context, progress
from diffusekit.settings import ServeSettings
from diffusekit.visualise import xyz_grid


def test_a_visitor_who_leaves_while_waiting_in_line_takes_the_job_along(tmp_path, monkeypatch):
    monkeypatch.setattr(Worker, "run", lambda self: None)  # nobody works: all jobs stay in line
    monkeypatch.setattr(progress, "POLL_INTERVAL", 0.01)
    jobs = Jobs(ServeSettings(outputs=str(tmp_path / "out"), state=str(tmp_path / "state"))).open()

    run = progress.VisitorJob()

    async def visit():
        moments = progress.follow_images(jobs, {"prompt": "a cat"}, run)
        seen = [await anext(moments) for _ in range(3)]
        await moments.aclose()
        return seen

    seen = asyncio.run(visit())
    assert [moment.status for moment in seen] == ["Next in the queue"] * 3
    assert jobs.get(run.job_id).state == "cancelled" and not jobs.queue_length
    jobs.close(1)


def test_stop_counts_before_there_is_a_job_and_between_the_cells_of_a_grid(tmp_path, monkeypatch):
    monkeypatch.setattr(Worker, "run", lambda self: None)
    jobs = Jobs(ServeSettings(outputs=str(tmp_path / "out"), state=str(tmp_path / "state"))).open()
    run = progress.VisitorJob()
    run.stop(jobs)

    async def visit():
        axes = [xyz_grid.parse_axis("steps", "3, 4"), None, None]
        cells = xyz_grid.grid_cells(axes, {"prompt": "a cat", "seed": 1})
        return [m async for m in progress.follow_grid(jobs, axes, cells, {"prompt": "a cat"}, run)]

    assert asyncio.run(asyncio.wait_for(visit(), 20))[-1].status == "Stopped: 0 of 2 images."
    (only,) = jobs.list()
    assert only.state == "cancelled"
    jobs.close(1)


def test_a_server_that_stops_keeps_what_a_page_has_in_line(tmp_path, monkeypatch):
    monkeypatch.setattr(Worker, "run", lambda self: None)
    jobs = Jobs(ServeSettings(outputs=str(tmp_path / "out"), state=str(tmp_path / "state"))).open()

    async def visit():
        moments = progress.follow_images(jobs, {"prompt": "a cat"})
        await anext(moments)
        for feed in jobs.unfinished:
            feed.close()  # as `Jobs.close` does, before the list of jobs is put away
        with pytest.raises(Overloaded):
            await anext(moments)

    asyncio.run(visit())
    assert jobs.queue_length == 1 and jobs.list()[0].state == "queued"
    jobs.close(1)


def test_what_cannot_be_queued_is_said_before_anything_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(Worker, "run", lambda self: None)
    settings = ServeSettings(outputs=str(tmp_path / "o"), state=str(tmp_path / "s"), queue=1)
    jobs = Jobs(settings).open()
    jobs.submit("generate", {"prompt": "a cat"})

    async def visit(settings):
        return [moment async for moment in progress.follow_images(jobs, settings)]

    with pytest.raises(DiffusekitError, match="waiting"):
        asyncio.run(visit({"prompt": "a dog"}))
    assert "waiting" in context.error_notice(Overloaded("1 jobs are waiting, and no more may"))
    jobs.close(1)
