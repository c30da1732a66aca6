"""The queue: order, events, cancelling, limits, and restarts."""

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from diffusekit import embeddings, metadata
from diffusekit.embeddings import LearnedToken
from diffusekit.errors import Overloaded, UsageError
from diffusekit.pipeline import generate
from diffusekit.server.errors import JobNotFound, ShuttingDown
from diffusekit.server.jobs import events, kinds
from diffusekit.server.jobs import generate as generate_job
from diffusekit.server.jobs.context import JobContext
from diffusekit.server.jobs.job import Job
from diffusekit.server.jobs.queue import Jobs
from diffusekit.server.jobs.store import JobStore
from diffusekit.settings import ServeSettings
from tests.helpers.server import QUICK, open_jobs, opened, ticking, until


def ended(jobs, job):
    *_, last = jobs.watch(job.id, previews=False)
    return last


def test_a_job_generates_the_images_that_generate_does():
    with opened() as jobs:
        job = jobs.submit("generate", {"prompt": "a red cat", "images": 2, **QUICK})
        last = ended(jobs, job)
        assert last.kind == "done" and last.job.progress == 1 and jobs.get(job.id) == last.job
        expected = generate("a red cat", images=2, device="cpu", **QUICK)
        for name, picture in zip(last.job.pictures, expected, strict=True):
            path = jobs.outputs / name
            assert Image.open(path).tobytes() == picture.image.tobytes()
            record = metadata.read(path).record
            assert record is not None and record.settings == picture.record.settings
        until(lambda: jobs.statistics.images == 2)
        assert jobs.queue_length == 0 and jobs.running_job is None


def test_a_server_takes_its_tokens_from_the_folder_of_its_settings(tmp_path):
    vector = torch.ones(1, 256) * 0.02
    embeddings.save(LearnedToken("owl", "O*", (vector,)), tmp_path / "tokens" / "owl.safetensors")
    with opened(embeddings=str(tmp_path / "tokens")) as jobs:
        for settings in ({"prompt": "a photo of <owl>"}, {"prompt": "a photo", "embedding": ["owl"]}):
            last = ended(jobs, jobs.submit("generate", settings | QUICK))
            record = metadata.read(jobs.outputs / last.job.pictures[0]).record
            assert record is not None and list(record.embeddings) == ["owl"]
    with opened() as jobs, pytest.raises(UsageError, match="owl"):
        jobs.submit("generate", {"prompt": "a photo", "embedding": ["owl"], **QUICK})


def test_several_prompts_in_one_job():
    with opened() as jobs:
        job = ended(jobs, jobs.submit("generate", {"prompts": ["a cat", "a dog"], **QUICK, "batch": 1})).job
        prompts = [metadata.read(jobs.outputs / n).record.settings.prompt for n in job.pictures]
        assert prompts == ["a cat", "a dog"] and job.step == job.steps == 4


def test_jobs_run_in_the_order_of_submission(monkeypatch):
    ticks = ticking(monkeypatch, free=True)
    with opened() as jobs:
        made = [jobs.submit("tick", {"number": i}) for i in range(20)]
        ended(jobs, made[-1])
        assert ticks.order == list(range(20))
        assert [job.id for job in jobs.list(20)] == [job.id for job in reversed(made)]


def test_events_show_every_state_and_leaving_does_not_cancel(monkeypatch):
    ticks = ticking(monkeypatch)
    with opened() as jobs:
        job = jobs.submit("tick", {})
        watching = jobs.watch(job.id)
        assert next(watching).kind in ("queued", "progress")
        ticks.go(2)
        watching.close()
        ticks.go(3)
        last = ended(jobs, job)
        assert last.kind == "done" and last.job.step == 5 and last.is_last


def test_previews_are_drawn_only_when_somebody_watches_and_not_too_often(monkeypatch):
    ticks = ticking(monkeypatch)
    # a step takes a sixteenth of a second, and a preview, due after 200 ms, comes with each fourth
    monkeypatch.setattr(events, "time", SimpleNamespace(monotonic=lambda: ticks.steps / 16))
    with opened() as jobs:
        ticks.go(50)
        ended(jobs, jobs.submit("tick", {"steps": 50}))
        assert ticks.drawn == 0
        watching = jobs.watch(jobs.submit("tick", {"steps": 20}).id)
        next(watching)
        ticks.go()
        assert next(event for event in watching if event.preview) and ticks.drawn == 1
        ticks.go(19)
        assert [event.kind for event in watching][-1] == "done" and ticks.drawn == 5
        jobs.submit("tick", {"steps": 60})
        until(lambda: jobs.running_job)
        assert jobs.request_preview() == ()  # asks for three seconds of them
        ticks.go(60)
        until(lambda: jobs.running_job is None)
        assert ticks.drawn == 5 + 12


def test_partial_images_are_spread_evenly(monkeypatch):
    import asyncio

    ticks = ticking(monkeypatch)

    async def seen(jobs, job_id):
        found = []
        async for event in jobs.watch_async(job_id, previews=False, partials=3):
            if event.preview:
                found.append(event.job.step)
            if not event.is_last:
                ticks.go()
        return found

    with opened() as jobs:
        job = jobs.submit("tick", {"steps": 8})
        assert asyncio.run(seen(jobs, job.id)) == [2, 4, 6]


def test_a_running_job_stops_after_one_step(monkeypatch):
    ticks = ticking(monkeypatch)
    with opened() as jobs:
        first, second = jobs.submit("tick", {"steps": 50}), jobs.submit("tick", {"steps": 1})
        ticks.go(3)
        until(lambda: ticks.requested == 4)
        jobs.cancel(first.id)
        ticks.go(2)
        assert ended(jobs, first).kind == "cancelled" and ended(jobs, second).kind == "done"
        assert ticks.steps == 5


def test_waiting_finished_and_unknown_jobs_are_cancelled_as_expected(monkeypatch):
    ticks = ticking(monkeypatch)
    with opened() as jobs:
        running, waiting = jobs.submit("tick", {}), jobs.submit("tick", {"number": 1})
        until(lambda: jobs.running_job)
        assert jobs.count_ahead(waiting.id) == 1
        assert jobs.cancel(waiting.id).state == "cancelled"
        ticks.go(5)
        assert ended(jobs, running).kind == "done" and ended(jobs, waiting).kind == "cancelled"
        assert jobs.cancel(running.id).state == "done" and ticks.order == [0]
        with pytest.raises(JobNotFound):
            jobs.cancel("no such id")


def test_skipping_continues_with_the_next_image(monkeypatch):
    told = JobContext.report_progress

    def progress(work, step, steps):
        told(work, step, steps)
        if step == 1:
            jobs.skip(work.job.id)

    monkeypatch.setattr(JobContext, "report_progress", progress)
    with opened() as jobs:
        job = jobs.submit("generate", {"prompt": "a cat", "images": 3, **QUICK, "steps": 6, "batch": 1})
        last = ended(jobs, job)
        seeds = [metadata.read(jobs.outputs / n).record.settings.seed for n in last.job.pictures]
        assert last.kind == "done" and seeds == [8, 9]


def test_a_full_queue_says_when_to_try_again(monkeypatch):
    ticks = ticking(monkeypatch)
    with opened(queue=2) as jobs:
        jobs.submit("tick", {})
        until(lambda: jobs.running_job)
        jobs.submit("tick", {}), jobs.submit("tick", {})
        with pytest.raises(Overloaded) as refused:
            jobs.submit("tick", {})
        assert refused.value.retry_after >= 1 and not isinstance(refused.value, ShuttingDown)
        ticks.go(15)
        until(lambda: jobs.statistics.jobs["done"] == 3)
        assert not jobs.queue_length and not jobs.running_job


def test_a_job_that_raises_fails_alone(monkeypatch):
    def broken(work):
        yield
        raise ZeroDivisionError

    ticks = ticking(monkeypatch, free=True)
    monkeypatch.setitem(kinds.JOB_TYPES, "broken", kinds.JobType(ticks.check, broken))
    with opened() as jobs:
        job = ended(jobs, jobs.submit("broken", {})).job
        assert job.state == "failed" and job.failure and "ZeroDivisionError" in job.failure.message
        odd = ended(jobs, jobs.submit("generate", {"prompt": "x", **QUICK, "width": 65})).job
        assert odd.failure and odd.failure.code == 2 and odd.failure.message.startswith("width")
        assert ended(jobs, jobs.submit("tick", {})).kind == "done"


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"prompt": "x" * 5000}, "prompt"),
        ({"negative_prompt": "x" * 5000}, "negative_prompt"),
        ({"prompts": []}, "prompts"),
        ({"prompts": "a cat"}, "prompts"),
        ({"prompts": ["a"] * 5, "images": 4}, "images"),
        ({"prompts": ["a", 5]}, "prompt"),
        ({"prompt": "a", "prompts": ["b"]}, "prompts"),
        ({"steps": 151}, "steps"),
        ({"steps": "many"}, "steps"),
        ({"width": 8192, "height": 8192}, "width"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"model": "/etc"}, "model"),
        ({"model": "someone/else"}, "model"),
        ({"model": "../mini"}, "model"),
        ({"embedding": ["/etc/passwd"]}, "embedding"),
        ({"embedding": ["x.safetensors"]}, "embedding"),
        ({"prompt": "\ud800"}, "prompt"),
    ],
)
def test_settings_beyond_the_limits_are_refused_by_name(asked, field):
    with pytest.raises(UsageError) as refused:
        generate_job.check(asked, ServeSettings())
    assert refused.value.message.split()[0].strip("`") == field


def test_settings_are_complete_when_they_are_queued_and_device_is_the_servers():
    rules = ServeSettings(device="cpu")
    made = generate_job.check({"prompt": "a cat", "device": "cuda:9", "dtype": "float16"}, rules)
    assert made["device"] == "cpu" and made["dtype"] == "auto" and made["seed"] is not None
    assert made["prompts"] == ["a cat"] and "prompt" not in made


# --- restarts --------------------------------------------------------------------------------


def written(**changes) -> Job:
    settings = generate_job.check({"prompts": ["a cat", "a dog"], "images": 2, **QUICK}, ServeSettings(device="cpu"))
    return Job(**{"id": "0123456789abcdef", "kind": "generate", "settings": settings} | changes)


def put(*jobs: Job) -> None:
    store = JobStore(Path(".diffusekit/jobs.sqlite"))
    for job in jobs:
        store.save(job)
    store.close()


def test_queued_and_running_jobs_continue_in_order_after_a_restart(monkeypatch):
    ticks = ticking(monkeypatch, free=True)
    put(
        Job("a", "tick", {"steps": 3, "number": 1}, state="done"),
        Job("b", "tick", {"steps": 3, "number": 2}, state="running", attempts=1),
        Job("c", "tick", {"steps": 3, "number": 3}),
    )
    with opened() as jobs:
        assert ended(jobs, jobs.get("c")).kind == "done"
        assert jobs.get("b").state == "done" and jobs.get("b").attempts == 2
        assert jobs.get("a").state == "done"
    assert ticks.order == [2, 3]


def test_a_restarted_job_continues_behind_its_last_image():
    """Killed after three of four images: only the fourth is generated, and it is the same as ever."""
    put(written(state="running", attempts=1, passed=3, pictures=("x", "y", "z")))
    with opened() as jobs:
        job = ended(jobs, jobs.get("0123456789abcdef")).job
        (path,) = jobs.outputs.rglob("*.png")
        assert len(job.pictures) == 4 and jobs.outputs / job.pictures[-1] == path
        assert job.step == job.steps == 2
        expected = generate("a dog", device="cpu", **QUICK | {"seed": 8})[0]
        assert Image.open(path).tobytes() == expected.image.tobytes()


def test_an_image_that_was_saved_but_not_recorded_is_not_there_twice():
    put(written())
    with opened() as jobs:
        ended(jobs, jobs.get("0123456789abcdef"))
    put(written(state="running", attempts=1, passed=3, pictures=("x", "y", "z")))
    with opened() as jobs:
        ended(jobs, jobs.get("0123456789abcdef"))
        assert len(list(jobs.outputs.rglob("*.png"))) == 4


def test_a_job_that_ends_the_server_twice_is_not_started_again(monkeypatch):
    ticks = ticking(monkeypatch, free=True)
    put(Job("a", "tick", {"steps": 1}, state="running", attempts=2))
    with opened() as jobs:
        failure = jobs.get("a").failure
        assert failure and "ended 2 times" in failure.message and ticks.order == []


def test_closing_requeues_the_running_job_and_keeps_the_queue(monkeypatch):
    ticks = ticking(monkeypatch)
    jobs = open_jobs()
    first, second = jobs.submit("tick", {"number": 1}), jobs.submit("tick", {"number": 2})
    ticks.go(2)
    until(lambda: ticks.requested == 3)
    watched = jobs.watch(second.id)
    next(watched)
    closing = threading.Thread(target=jobs.close, args=(5.5,))
    closing.start()
    until(lambda: not jobs.is_ready)
    with pytest.raises(ShuttingDown):
        jobs.submit("tick", {})
    until(lambda: jobs.running_job is None or jobs.channel(first.id).cancel_requested)
    ticks.go()
    closing.join()
    assert next(watched).kind == "requeued"
    ticks.free = True
    with opened() as jobs:
        ended(jobs, jobs.get(second.id))
        assert jobs.get(first.id).state == jobs.get(second.id).state == "done"
        assert jobs.get(first.id).attempts == 1
    assert ticks.order == [1, 1, 2]


def test_closing_lets_a_fast_job_finish(monkeypatch):
    ticks = ticking(monkeypatch)
    jobs = open_jobs()
    job = jobs.submit("tick", {})
    ticks.go(5)
    until(lambda: ticks.steps)
    jobs.close(20)
    store = JobStore(Path(".diffusekit/jobs.sqlite"))
    kept = store.get(job.id)
    store.close()
    assert kept and kept.state == "done"


def test_two_servers_do_not_share_a_list():
    with opened(), pytest.raises(UsageError, match="another server"):
        Jobs(ServeSettings(device="cpu")).open()


def test_old_jobs_are_deleted_but_never_unfinished_ones(monkeypatch):
    monkeypatch.setattr("diffusekit.server.jobs.store.MAX_FINISHED", 3)
    put(Job("0", "tick", {}), *[Job(str(i), "tick", {}, state="done") for i in range(1, 9)])
    store = JobStore(Path(".diffusekit/jobs.sqlite"))
    store.prune()
    assert [job.id for job in store.list_newest(10)] == ["8", "7", "6", "0"]
    store.close()


def test_only_a_finished_job_can_be_forgotten(monkeypatch):
    ticks = ticking(monkeypatch)
    with opened() as jobs:
        job = jobs.submit("tick", {})
        jobs.forget(job.id)
        assert jobs.get(job.id) and [each.id for each in jobs.list()] == [job.id]
        ticks.go(5)
        ended(jobs, job)
        until(lambda: not jobs.unfinished)
        jobs.forget(job.id)
        assert not jobs.list()
        with pytest.raises(JobNotFound):
            jobs.get(job.id)
