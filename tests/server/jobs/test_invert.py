"""The invert job: its settings and its child process."""

from pathlib import Path

import pytest

from diffusekit import embeddings
from diffusekit.config import read_recipe
from diffusekit.errors import UsageError
from diffusekit.inversion.run_folder import RunFolder
from diffusekit.server.jobs import invert, kinds
from diffusekit.server.jobs.context import JobContext
from diffusekit.server.jobs.events import JobChannel
from diffusekit.server.jobs.job import Job
from diffusekit.server.storage import uploads
from diffusekit.settings import InvertSettings
from diffusekit.workspace import Workspace
from tests.helpers.server import opened, until

EVIL = [
    "..",
    "../x",
    "/abs",
    "a/b",
    "a\\b",
    "CON",
    "nul.txt",
    "<script>",
    "x" * 300,
    "a\nb",
    "",
    " ",
]
QUICK = {"steps": 6, "preview_every": 3, "checkpoint_every": 2, "patience": 0, "batch": 1}


def upload(rules, files):
    return uploads.store(Path(rules.state), files)


# --- settings --------------------------------------------------------------------------------


def check(rules, values):
    return kinds.JOB_TYPES["invert"].check(values, rules)


@pytest.mark.parametrize("init", ["/etc/cat.safetensors", "../cat", "cat.pt", "cat.png", "a/cat"])
def test_initial_vectors_do_not_come_from_files_that_a_client_names(rules, owl, init):
    made = upload(rules, owl)
    with pytest.raises(UsageError, match="is a path") as caught:
        check(rules, {"pictures": made.id, "name": "my_owl", "init": init})
    assert "<my_cat>" in caught.value.hint


def test_validation_images_are_as_large_as_the_server_allows(rules, owl):
    made = upload(rules, owl)
    with pytest.raises(UsageError, match="preview_size is 4,096"):
        check(rules, {"pictures": made.id, "name": "my_owl", "preview_size": 4096})


def test_checked_settings_are_complete(rules, owl, tmp_path):
    made = upload(rules, owl)
    found = check(rules, {"pictures": made.id, "name": "my_owl", "init": 'a "bird"\x7f\\', "steps": 50})
    assert found["device"] == "cpu" and found["resume"] is False and found["folder"] == str(made.folder)
    again = check(rules, found)  # what a job was asked for can be asked for again
    assert again == found
    recipe = tmp_path / "r.toml"
    recipe.write_text(invert.format_recipe(found, made.folder))
    read = read_recipe(InvertSettings, recipe)
    assert read["init"] == 'a "bird"\x7f\\' and read["steps"] == 50 and read["name"] == "my_owl"
    unset = ("learning_rate", "preview", "preview_every", "preview_images", "preview_size")
    assert set(read) >= {f for f in invert.CLIENT_SETTINGS if f not in unset}


@pytest.mark.parametrize("name", EVIL)
def test_names_that_are_not_file_names_are_refused(rules, owl, name):
    with pytest.raises(UsageError, match=r"^name "):
        check(rules, {"pictures": upload(rules, owl).id, "name": name})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"steps": 10**6}, "steps"),
        ({"vectors": 75}, "vectors"),
        ({"steps": 0}, "steps"),
        ({"clip": "/etc"}, "clip"),
        ({"trackers": ["wandb"]}, "trackers"),
        ({"steps": "many"}, "steps"),
        ({"model": "../../x"}, "model"),
        ({"token": "a b"}, "token"),
        ({"pictures": "../x"}, "pictures"),
        ({"pictures": None}, "pictures"),
        ({"resume": "yes"}, "resume"),
        ({"magic": 1}, "unknown setting"),
        ({"preview": "S* " * 2000}, "preview"),
    ],
)
def test_settings_that_clients_may_not_use_are_refused(rules, owl, values, said):
    given = {"pictures": upload(rules, owl).id, "name": "my_owl"}
    with pytest.raises(UsageError, match=f"^`?{said}"):
        check(rules, given | values)


def test_the_server_limits_training_steps(rules, owl):
    given = {"pictures": upload(rules, owl).id, "name": "my_owl"}
    assert check(rules, given | {"steps": 5000})["steps"] == 5000
    few = rules.model_copy(update={"max_training_steps": 40})
    assert check(few, given | {"steps": 40})["steps"] == 40
    with pytest.raises(UsageError, match=r"^steps is 41, and this server allows 40$"):
        check(few, given | {"steps": 41})


def test_a_taken_name_and_an_unfinished_run_are_refused(rules, owl):
    given = {"pictures": upload(rules, owl).id, "name": "my_owl"}
    run = Workspace().embeddings / "my_owl"
    run.mkdir(parents=True)
    assert check(rules, given)
    (run / "log.jsonl").write_text('{"step": 10, "loss": 0.5}\n')
    with pytest.raises(UsageError, match="unfinished"):
        check(rules, given)
    assert check(rules, given | {"resume": True})["resume"]
    run.with_name("my_owl.safetensors").touch()
    with pytest.raises(UsageError, match="taken"):
        check(rules, given | {"resume": True})


# --- the job ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_token_is_trained_in_a_child_process(rules, owl, monkeypatch):
    monkeypatch.setenv("DIFFUSEKIT_TOKEN", "secret word")  # the server's key, not the token's name
    with opened(**rules.model_dump()) as jobs:
        made = upload(rules, owl)
        job = jobs.submit("invert", {"pictures": made.id, "name": "my_owl", "init": "cat"} | QUICK)
        events = list(jobs.watch(job.id))
        assert events[-1].kind == "done", events[-1].job.failure
        assert any(event.preview for event in events) and events[-1].job.step == 6
        assert any("initial words" in event.job.note for event in events)
    token = embeddings.load_token("my_owl")
    assert token.token == "S*" and token.metadata["init"] == "cat"
    assert not list((Path(rules.state) / "learning").iterdir())


@pytest.mark.slow
def test_a_stopped_run_is_saved_and_resumed(rules, owl):
    with opened(**rules.model_dump()) as jobs:
        given = {"pictures": upload(rules, owl).id, "name": "my_owl", "init": "cat"} | QUICK
        job = jobs.submit("invert", given | {"steps": 2000, "preview_every": 0})
        until(lambda: jobs.get(job.id).step >= 10, 120)
        jobs.cancel(job.id)
        until(lambda: jobs.running_job is None and jobs.get(job.id).state == "cancelled", 60)
        now = RunFolder(Workspace().embeddings, "my_owl")
        until(lambda: now.has_checkpoint, 60)
        at = now.read_log().step
        assert at >= 10 and not now.has_token
        # fewer steps than were asked for before, so that it ends soon
        more = jobs.get(job.id).settings | {"steps": at + 20, "resume": True}
        last = list(jobs.watch(jobs.submit("invert", more).id))[-1]
        assert last.kind == "done", last.job.failure
    log = RunFolder(Workspace().embeddings, "my_owl").read_log().entries
    assert [e["step"] for e in log if e["step"] == 10] == [10] and log[-1]["step"] == at + 20


@pytest.mark.slow
def test_a_run_continues_after_a_restart_and_a_failed_run_disturbs_no_other(rules, owl):
    given = {"pictures": upload(rules, owl).id, "name": "my_owl", "init": "cat"} | QUICK
    with opened(**rules.model_dump()) as jobs:
        job = jobs.submit("invert", given | {"steps": 60, "preview_every": 0})
        until(lambda: jobs.get(job.id).step >= 10, 120)
    with opened(**rules.model_dump()) as jobs:  # closed with the job on its way: it is queued again
        until(lambda: jobs.get(job.id).is_finished, 120)
        assert jobs.get(job.id).state == "done", jobs.get(job.id).failure
        failing = jobs.submit("invert", given | {"name": "other", "token": "cat"})
        last = list(jobs.watch(failing.id))[-1]
        assert last.kind == "failed" and "is a word of the model" in last.job.failure.message
        assert last.job.failure.code == 2 and last.job.failure.hint
    assert embeddings.load_token("my_owl").metadata["steps"]


@pytest.mark.slow
def test_the_child_process_saves_a_checkpoint_when_the_server_has_gone(rules, owl, tmp_path, monkeypatch):
    made = upload(rules, owl)
    values = check(rules, {"pictures": made.id, "name": "my_owl", "init": "cat"} | QUICK)
    channel = JobChannel(Job("0" * 16, "invert", values | {"steps": 3000, "preview_every": 0}))
    folders = {"state": tmp_path, "outputs": tmp_path / "outputs"}
    folders |= {"embeddings": Workspace().embeddings, "loras": Workspace().loras}
    context = JobContext(channel, lambda job: None, **folders)
    steps = invert.run(context)
    next(steps)
    now = RunFolder(Workspace().embeddings, "my_owl")
    until(lambda: next(steps, True) is None and now.read_log().step >= 10, 120)
    child = steps.gi_yieldfrom or steps.gi_frame.f_locals["child"]
    child.stdin.close()  # what the system does when a process is killed
    until(lambda: child.poll() is not None, 60)
    assert child.returncode == 130 and now.has_checkpoint
    monkeypatch.setattr(invert, "TIMEOUT", 0.1)  # no signal will come
    with pytest.raises(invert.TrainingFailed, match="stopped"):
        for _ in steps:
            pass
