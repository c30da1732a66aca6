"""The Learn tab: what it says without a browser, and a token learned from five pictures in one."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from diffusekit import embeddings
from diffusekit.errors import UsageError
from diffusekit.inversion.dataset import FileStatus
from diffusekit.inversion.run_folder import RunFolder
from diffusekit.server.jobs.job import Failure, Job
from diffusekit.server.storage.uploads import UploadedSet
from diffusekit.server.ui import prompt_info
from diffusekit.server.ui.tabs import learn_handlers, learn_html, learn_runs
from diffusekit.workspace import Workspace
from tests.helpers.browser import fill, fill_number, wait_for_value, write
from tests.helpers.markup import EVIL, nodes
from tests.helpers.server import until


def test_names_of_files_never_become_html(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "00.png")
    rows = (FileStatus(EVIL, "20x20", True, ""), FileStatus("b.png", "", False, f"a duplicate of {EVIL}"))
    found, handlers = nodes(learn_html.render_uploads(UploadedSet("0" * 16, tmp_path, rows, ("",))))
    assert "script" not in found and found.count("img") == 1 and not handlers


def test_a_log_never_becomes_html(tmp_path):
    folder = tmp_path / "owl"
    folder.mkdir()
    lines = [
        {"step": 10, "loss": 0.5, "smoothed": 0.5, "nearest": [EVIL], "moved": EVIL, "best": True},
        {"step": 20, "loss": 0.4, "smoothed": float("nan"), "norm": [1]},
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found, handlers = nodes(learn_html.render_details(RunFolder(tmp_path, "owl").read_log(), 100))
    assert not {"script", "img"} & set(found) and not handlers


def test_a_run_says_where_it_is(tmp_path):
    run = RunFolder(tmp_path, "owl")
    job = Job("1", "invert", {"name": "owl"}, state="queued")
    assert "3 jobs before" in learn_html.render_state(run, job, 3)
    going = replace(job, state="running", step=20, steps=80)
    told = learn_html.render_state(run, going, 0, 61.0)
    assert "Step 20 of at most 80 · 61 s left" in told and 'value="0.2500"' in told
    assert "Other jobs wait" in told
    why = Failure(5, f"it diverged {EVIL}", "use a smaller rate")
    failed = learn_html.render_state(run, replace(job, state="failed", failure=why), 0)
    assert "diverged" in failed and "Use a smaller rate" in failed and "script" not in nodes(failed)[0]
    run.path.mkdir()
    (run.path / "log.jsonl").write_text('{"step": 30, "loss": 1}\n')
    assert "Stopped at step 30" in learn_html.render_state(run, replace(job, state="cancelled"), 0)
    run.token.touch()
    done = learn_html.render_state(run, None, 0)
    assert "<owl>" not in done and "&lt;owl&gt;" in done


def test_time_is_told_by_what_the_last_run_took_here():
    done = Job(
        "1",
        "invert",
        {"model": "mini", "batch": 4},
        state="done",
        started=100.0,
        finished=300.0,
        step=100,
    )
    assert learn_html.estimate_duration([done], "mini", 50, 4).startswith("About 2 min")
    assert learn_html.estimate_duration([done], "mini", 10, 2).startswith("About 10 s")
    assert "processor" in learn_html.estimate_duration([replace(done, state="failed")], "mini", 10, 4)
    assert "known after" in learn_html.estimate_duration([done], "other", 10, 4)


def test_a_name_comes_from_what_the_files_are_called():
    def called(*names):
        return learn_handlers.suggest_name([Path(name) for name in names])

    assert called("my_owl_1.png", "my_owl_2.jpg", "notes.txt") == "my_owl"
    for names in (("IMG_1.png", "IMG_2.png"), ("a.png", "b.png"), ("owl.png",), ()):
        assert not isinstance(called(*names), str)


def test_the_word_to_start_from_is_read_without_the_weights():
    assert prompt_info.suggest_init("mini", "my_cat") == "cat"
    assert prompt_info.suggest_init("mini", "?!") in ("thing", "object", "photo", "picture")


@pytest.mark.slow
def test_a_run_that_is_not_finished_is_discarded(page, jobs):
    run = Workspace().embeddings / "my_owl"
    run.mkdir(parents=True)
    (run / "log.jsonl").write_text('{"step": 30, "loss": 1}\n')
    page.locator("#tab-learn-button").click()
    page.locator("#learn-run input").click()
    page.get_by_role("option", name="my_owl").click()
    page.locator("#learn-discard").click()
    page.wait_for_selector("#learn-state >> text=/my_owl has 30 steps, 1 file, 2\\d bytes/")
    assert run.exists()
    page.locator("#learn-discard", has_text="Discard run").click()
    page.wait_for_selector("#learn-state >> text=my_owl is discarded")
    assert not run.exists() and not page.locator("#learn-run").is_visible()
    page.locator("#tab-tokens-button").click()
    page.locator("#tokens-trash", has_text="Empty trash (").wait_for()


@pytest.mark.slow
def test_a_token_is_learned_from_five_pictures_and_used(page, jobs, tmp_path, monkeypatch):
    from training.mini import photos

    photos.write_photos("owl", tmp_path / "owl")
    evil = tmp_path / "owl" / "<img src=x onerror=pwned=1>.png"
    Image.new("RGB", (40, 40), "red").save(evil)
    page.locator("#tab-learn-button").click()
    page.locator("#learn-go").click()
    page.wait_for_selector("#learn-notice .error >> text=no images yet")
    page.locator("#photos input[type=file]").set_input_files(sorted((tmp_path / "owl").iterdir()))
    page.wait_for_selector("#photo-table table")
    assert page.locator("#photo-table tbody tr").count() == 6
    assert page.evaluate("window.pwned") is None
    fill(page, "#learn-name", "../owl")
    page.locator("#learn-go").click()
    page.wait_for_selector("#learn-notice .error >> text=for example owl")
    fill(page, "#learn-name", "my_owl")
    fill(page, "#learn-init", "cat")
    page.locator("#learn-settings button").first.click()
    fill_number(page, "#learn-steps", "5000")  # so many that it is stopped on the way
    fill_number(page, "#learn-preview", "0")
    page.locator("#learn-go").click()
    page.wait_for_selector("#learn-stop")
    page.wait_for_selector("#learn-slider img")  # what the word draws
    page.wait_for_selector("text=/Step [1-9]\\d* of at most 5000/")
    page.locator("#learn-stop").click()
    page.wait_for_selector("#learn-resume")
    until(lambda: jobs.running_job is None, 120)  # and the process has saved itself
    fewer = {"steps": RunFolder(Workspace().embeddings, "my_owl").read_log().step + 20}
    page.reload()  # nothing of it was in the page
    page.locator("#tab-learn-button").click()
    page.wait_for_selector("#learn-run")
    page.locator("#learn-run input").click()
    page.get_by_role("option", name="my_owl").click()
    page.locator("#learn-discard", has_text="Discard").click()
    page.wait_for_selector("#learn-state >> text=/my_owl has [1-9]\\d* steps, \\d+ files/")
    with monkeypatch.context() as patch:  # as the page asks for it, but with fewer steps to go
        whole = jobs.submit
        patch.setattr(jobs, "submit", lambda kind, given, **more: whole(kind, given | fewer, **more))
        page.locator("#learn-resume").click()
        page.wait_for_selector("#learn-use")
    assert jobs.list(1)[0].settings["resume"] is True
    assert not page.locator("#learn-discard").is_visible()
    assert page.locator("#learn-facts svg").count() >= 1
    assert embeddings.load_token("my_owl").metadata["init"] == "cat"
    page.locator("#learn-use").click()
    page.wait_for_selector("#prompt textarea")
    wait_for_value(page, page.locator("#prompt textarea"), "a picture of <my_owl>")
    page.wait_for_function("document.querySelector('#words [data-words]').dataset.words.includes('my_owl')")
    page.locator("#settings button").first.click()
    write(page, page.locator("#settings").get_by_label("Steps").first, "3")
    page.locator("#go").click()
    page.wait_for_selector("#result img[data-testid=detailed-image]")
    made = next(job for job in jobs.list() if job.kind == "generate")
    assert made.settings["prompts"] == ["a picture of <my_owl>"] and len(made.pictures) == 1
    assert made.settings["steps"] == 3
    page.locator("#see-made").click()
    page.wait_for_selector("#see-notice >> text=settings of the image")
    wait_for_value(page, page.locator("#see-prompt textarea"), "a picture of <my_owl>")


@pytest.mark.parametrize("state", ["queued", "running", "done", "failed"])
def test_a_name_is_trained_once_at_a_time(state):
    job = Job("0" * 16, "invert", {"name": "my_cat"}, state=state)
    runs = learn_runs.TrainingRuns(SimpleNamespace(list=lambda limit: [job]))
    if state in ("queued", "running"):
        with pytest.raises(UsageError, match="my_cat is already being trained"):
            runs.check_idle("my_cat")
    else:
        runs.check_idle("my_cat")
