"""Learning a token and showing a picture's way, as jobs: their settings, the process, the files."""

import os
from pathlib import Path

import pytest
from PIL import Image

from diffusekit import embeddings
from diffusekit.config import read_recipe
from diffusekit.errors import DataSetError, UsageError
from diffusekit.inversion.dataset import collect
from diffusekit.inversion.run_folder import RunFolder
from diffusekit.server.jobs import invert, kinds, visualise
from diffusekit.server.jobs.context import JobContext
from diffusekit.server.jobs.events import JobChannel
from diffusekit.server.jobs.job import Job
from diffusekit.server.storage import uploads
from diffusekit.settings import InvertSettings, ServeSettings
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


@pytest.fixture
def rules(tmp_path):
    return ServeSettings(device="cpu", state=str(tmp_path / "state"), outputs=str(tmp_path / "outputs"))


@pytest.fixture
def owl(tmp_path):
    from training.mini.photos import write_photos

    write_photos("owl", tmp_path / "owl")
    return sorted((tmp_path / "owl").iterdir())


def a_set(rules, files):
    return uploads.store(Path(rules.state), files)


# --- uploads ---------------------------------------------------------------------------------


def test_uploads_are_written_again_under_names_of_ours(tmp_path, rules):
    files = []
    for i, name in enumerate(["a.JPG", "b <img src=x>.png", "c.png"]):
        files.append(tmp_path / name)
        exif = Image.Exif()
        exif[0x0112], exif[0x010E] = 6, "where I live"
        kind = "JPEG" if name.endswith("JPG") else "PNG"
        Image.new("RGB", (40, 30), (80 * i, 0, 0)).save(files[-1], kind, exif=exif)
    (tmp_path / "c.txt").write_text("a {} on\na sofa")
    (tmp_path / "evil.html").write_text("<script>1</script>")
    made = a_set(rules, [*files, tmp_path / "c.txt", tmp_path / "evil.html"])
    assert sorted(p.name for p in made.folder.iterdir()) == ["00.png", "01.png", "02.png", "02.txt"]
    for path in made.folder.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.size == (30, 40) and not picture.getexif()
        assert b"where I live" not in path.read_bytes()
    statuses = {status.file: status for status in made.files}
    assert statuses["a.JPG"].used and "turned" in statuses["a.JPG"].note and not statuses["evil.html"].used
    assert (
        made.captions
        == ("", "", "a {} on a sofa")
        == tuple(photo.caption or "" for photo in collect(made.folder).photos)
    )
    assert len(list((Path(rules.state) / "pictures").iterdir())) == 1  # nothing is left of the staging


def test_too_few_and_twice_the_same_picture_are_said_by_their_own_names(tmp_path, rules):
    for name in ("one.png", "two.png", "three.png"):
        Image.new("RGB", (30, 30), "red").save(tmp_path / name)
    with pytest.raises(DataSetError, match=r"1 image can be used.*a duplicate of one\.png"):
        a_set(rules, sorted(tmp_path.glob("*.png")))
    assert not list((Path(rules.state) / "pictures").iterdir())


def test_other_captions_make_another_set(rules, owl):
    made = a_set(rules, owl)
    state = Path(rules.state)
    assert uploads.with_captions(state, made.id, made.captions) == made.id
    other = uploads.with_captions(state, made.id, ["a {} at home"])
    assert other != made.id
    assert [p.caption for p in collect(uploads.find_folder(state, other)).photos] == [
        "a {} at home",
        None,
        None,
        None,
        None,
    ]
    assert collect(made.folder).photos[0].caption == made.captions[0]


def test_old_sets_go_when_no_job_names_them(rules, owl):
    kept, old, new = (a_set(rules, owl) for _ in range(3))
    for each in (kept, old):
        os.utime(each.folder, (1, 1))
    uploads.prune(Path(rules.state), {kept.id})
    assert kept.folder.exists() and new.folder.exists() and not old.folder.exists()


@pytest.mark.parametrize("number", ["", "..", "../../etc", "0" * 16, "/etc", "0123456789abcdeg"])
def test_sets_are_found_by_their_own_ids_alone(rules, number):
    with pytest.raises(UsageError, match="pictures"):
        uploads.find_folder(Path(rules.state), number)


# --- settings --------------------------------------------------------------------------------


def check(rules, values):
    return kinds.JOB_TYPES["invert"].check(values, rules)


def test_settings_of_a_job_leave_nothing_to_the_environment(rules, owl, tmp_path):
    made = a_set(rules, owl)
    found = check(rules, {"pictures": made.id, "name": "my_owl", "init": 'a "bird"\x7f\\', "steps": 50})
    assert found["device"] == "cpu" and found["resume"] is False and found["folder"] == str(made.folder)
    again = check(rules, found)  # what a job was asked for can be asked for again
    assert again == found
    recipe = tmp_path / "r.toml"
    recipe.write_text(invert.format_recipe(found, made.folder))
    read = read_recipe(InvertSettings, recipe)
    assert read["init"] == 'a "bird"\x7f\\' and read["steps"] == 50 and read["name"] == "my_owl"
    assert set(read) >= {f for f in invert.CLIENT_SETTINGS if f not in ("learning_rate", "preview")}


@pytest.mark.parametrize("name", EVIL)
def test_names_that_are_no_file_names_are_refused(rules, owl, name):
    with pytest.raises(UsageError, match=r"^name "):
        check(rules, {"pictures": a_set(rules, owl).id, "name": name})


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
def test_what_a_client_may_not_ask_for(rules, owl, values, said):
    given = {"pictures": a_set(rules, owl).id, "name": "my_owl"}
    with pytest.raises(UsageError, match=f"^{said}"):
        check(rules, given | values)


def test_the_limit_of_steps_is_the_servers(rules, owl):
    given = {"pictures": a_set(rules, owl).id, "name": "my_owl"}
    assert check(rules, given | {"steps": 5000})["steps"] == 5000
    few = rules.model_copy(update={"max_training_steps": 40})
    assert check(few, given | {"steps": 40})["steps"] == 40
    with pytest.raises(UsageError, match=r"^steps is 41, and this server allows 40$"):
        check(few, given | {"steps": 41})


def test_a_taken_name_and_an_unfinished_run_are_said(rules, owl):
    given = {"pictures": a_set(rules, owl).id, "name": "my_owl"}
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
def test_a_token_is_learned_in_a_process_of_its_own(rules, owl, monkeypatch):
    monkeypatch.setenv("DIFFUSEKIT_TOKEN", "secret word")  # the server's key, not the token's name
    with opened(**rules.model_dump()) as jobs:
        made = a_set(rules, owl)
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
        given = {"pictures": a_set(rules, owl).id, "name": "my_owl", "init": "cat"} | QUICK
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
def test_a_restart_goes_on_and_a_failing_run_hurts_nobody(rules, owl):
    given = {"pictures": a_set(rules, owl).id, "name": "my_owl", "init": "cat"} | QUICK
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
def test_the_process_saves_itself_when_the_server_is_gone(rules, owl, tmp_path):
    made = a_set(rules, owl)
    values = check(rules, {"pictures": made.id, "name": "my_owl", "init": "cat"} | QUICK)
    channel = JobChannel(Job("0" * 16, "invert", values | {"steps": 3000, "preview_every": 0}))
    context = JobContext(channel, lambda job: None, outputs=tmp_path / "outputs", embeddings=Workspace().embeddings)
    steps = invert.run(context)
    next(steps)
    now = RunFolder(Workspace().embeddings, "my_owl")
    until(lambda: next(steps, True) is None and now.read_log().step >= 10, 120)
    child = steps.gi_yieldfrom or steps.gi_frame.f_locals["child"]
    child.stdin.close()  # what the system does when a process is killed
    until(lambda: child.poll() is not None, 60)
    assert child.returncode == 130 and now.has_checkpoint
    with pytest.raises(invert.TrainingFailed, match="stopped"):
        for _ in steps:
            pass


# --- seeing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"prompts": ["a", "b", "c"]}, "prompts"),
        ({"steps": 100}, "steps"),
        ({"width": 2048, "height": 2048}, "width"),
        ({"sampler": "magic"}, "sampler"),
    ],
)
def test_what_a_lesson_cannot_show(rules, values, said):
    with pytest.raises(UsageError, match=f"^{said}"):
        kinds.JOB_TYPES["visualise"].check(values, rules)


def test_lessons_are_found_by_their_jobs_alone(tmp_path):
    (tmp_path / ".lessons" / ("0" * 16)).mkdir(parents=True)
    for number in ("..", "0" * 16, "", "../../x"):
        with pytest.raises(UsageError):
            visualise.list_files(tmp_path, number)


@pytest.mark.slow
def test_a_lesson_is_a_page_and_an_exhibit_for_each_part(rules):
    with opened(**rules.model_dump()) as jobs:
        job = jobs.submit(
            "visualise",
            {"prompts": ["a red <apple>", "a green apple"], "steps": 3, "seed": 1, "images": 4},
        )
        last = list(jobs.watch(job.id))[-1]
        assert last.kind == "done", last.job.failure
        found = visualise.list_files(jobs.outputs, job.id)
    assert set(found) == {"lesson", *visualise.FIGURES}
    page = found["lesson"].read_text()
    assert "&lt;apple&gt;" in page and "<apple>" not in page
    with Image.open(found["film"]) as film:
        assert film.n_frames == 3  # the last guess is the picture
    assert not last.job.pictures
