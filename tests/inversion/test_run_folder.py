"""The folder of a run: what a reader sees while it is written, and who may write in it."""

import json

import pytest
from PIL import Image

from diffusekit.errors import UsageError
from diffusekit.inversion.run_folder import INIT_STEP, RunFolder, image_sheet, run_folders


def opened(tmp_path, name="owl") -> RunFolder:
    run = RunFolder(tmp_path, name)
    run.open(tmp_path / "pictures", resume=False, overwrite=False)
    return run


def test_progress_is_read_from_a_log_that_is_being_written(tmp_path):
    run = RunFolder(tmp_path, "owl")
    assert not (run.is_run or run.has_progress or run.has_token) and run.read_log().step == 0
    assert run.latest_images() == [] and run_folders(tmp_path) == []
    (run.path / "previews").mkdir(parents=True)
    sheet = Image.new("RGB", (16 * 8, 16), "red")
    for name in ("init", "000100", "000050"):
        sheet.save(run.path / "previews" / f"{name}.png")
    lines = [
        {"step": 0, "baseline": {"reconstruction": 0.2, "editability": 0.4, "pairwise": None}},
        {"step": 10, "loss": 0.5, "nearest": ["bird"], "moved": 0.3},
        {"step": 50, "loss": 0.4, "reconstruction": 0.6, "best": True},
        {"step": 60, "loss": 0.3},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run.path / "log.jsonl").write_text(text + '{"step": 70, "lo')
    log = run.read_log()
    assert log.step == 60 and log.latest["loss"] == 0.3 and log.best["step"] == 50
    assert log.curve("loss") == [(10, 0.5), (50, 0.4), (60, 0.3)]
    assert log.baseline == {"reconstruction": 0.2, "editability": 0.4}
    files = run.validation_images()
    assert [step for step, _ in files] == [INIT_STEP, 50, 100]
    assert len(run.latest_images()) == 4 and image_sheet(files[0][1]).size == (64, 32)
    assert run.is_run and run.has_progress and [found.name for found in run_folders(tmp_path)] == ["owl"]


def test_a_log_cut_inside_a_letter_loses_one_line(tmp_path):
    run = opened(tmp_path)
    run.append_log({"step": 1})
    run.append_log({"step": 2, "nearest": ["é"]})
    log = run.path / "log.jsonl"
    data = log.read_bytes()
    log.write_bytes(data[: data.index("é".encode()) + 1])
    assert run.read_log().entries == ({"step": 1},)
    run.rewind(5)
    assert log.read_text() == '{"step": 1}\n'
    run.close()


def test_rewinding_removes_what_came_after_a_step(tmp_path):
    run = opened(tmp_path)
    for step in (INIT_STEP, 10, 20):
        run.append_log({"step": step})
        run.save_images(step, [Image.new("RGB", (8, 8))] * 8)
    run.rewind(10)
    assert [entry["step"] for entry in run.read_log().entries] == [0, 10]
    assert [step for step, _ in run.validation_images()] == [INIT_STEP, 10]
    run.close()


def test_one_process_at_a_time_works_in_a_folder(tmp_path):
    run, second = opened(tmp_path), RunFolder(tmp_path, "owl")
    assert second.is_locked and not RunFolder(tmp_path, "other").is_locked
    with pytest.raises(UsageError, match="another process is training"):
        second.open(tmp_path / "pictures", resume=False, overwrite=False)
    run.close()
    assert not second.is_locked
