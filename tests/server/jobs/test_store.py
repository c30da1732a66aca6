"""The list of jobs on disk: a file that 0.4.0 wrote opens, and its jobs continue."""

import shutil
from pathlib import Path

import pytest

from diffusekit.server.jobs.store import JobStore
from tests.helpers.server import opened

WRITTEN_BY_0_4_0 = Path(__file__).with_name("data") / "jobs-0.4.0.sqlite"


@pytest.fixture
def old_list() -> Path:
    """A copy of a list that 0.4.0 wrote: a job that is done, one that failed, a cancelled, a running, a queued one."""
    path = Path(".diffusekit/jobs.sqlite")
    path.parent.mkdir()
    return Path(shutil.copy(WRITTEN_BY_0_4_0, path))


def test_a_list_that_0_4_0_wrote_is_read_whole(old_list):
    store = JobStore(old_list)
    done, failed, cancelled, running, queued = reversed(store.list_newest(10))
    store.close()
    states = [job.state for job in (done, failed, cancelled, running, queued)]
    assert states == ["done", "failed", "cancelled", "running", "queued"]
    assert done.pictures == ("2025-11-24/160000-00000000-01-7-a-red-cat.png",) and done.progress == 1
    assert failed.failure and (failed.failure.code, failed.failure.hint) == (6, "use a smaller size")
    assert cancelled.kind == "invert" and cancelled.owner == "page" and cancelled.settings["name"] == "my_owl"
    assert (running.passed, running.attempts, running.settings["prompts"]) == (1, 1, ["a red cat", "a dog"])
    assert queued.created == 1764000040.0


def test_the_jobs_of_0_4_0_continue_behind_their_last_image(old_list):
    with opened() as jobs:
        ids = [job.id for job in reversed(jobs.list())]
        ends = [list(jobs.watch(job_id, previews=False))[-1] for job_id in ids]
        assert [end.kind for end in ends] == ["done", "failed", "cancelled", "done", "done"]
        running, queued = (end.job for end in ends[3:])
        assert len(running.pictures) == 4 and running.attempts == 2 and len(queued.pictures) == 1
        assert len(list(jobs.outputs.rglob("*.png"))) == 4  # three that were left, and the queued one
