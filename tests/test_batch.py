"""A list of prompts becomes a folder of images: grouped, resumable, and one bad line does not spoil the others."""

import json
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image, ImageChops

import diffusekit
from diffusekit import metadata
from diffusekit.batch import ImageBatch, read_manifest
from diffusekit.cli.main import run
from diffusekit.errors import UsageError
from diffusekit.prompt_list import read_prompts
from diffusekit.settings import GenerateSettings

OUT = Path("out")


@pytest.fixture
def defaults(families) -> GenerateSettings:
    return GenerateSettings(model=str(families["sd1"]), device="cpu", steps=2)


def batch(defaults, *lines, **options) -> ImageBatch:
    Path("p.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    return ImageBatch(read_prompts(Path("p.jsonl"), defaults), OUT, **options)


def outcomes(run_of: ImageBatch):
    return [outcome for outcome in run_of if outcome is not None]


LINES = (
    {"prompt": "a red cat", "id": "cat"},
    {"prompt": "a dog", "id": "dog", "steps": 3},
    {"prompt": "two birds", "id": "birds", "images": 2, "negative_prompt": "blue"},
    {"prompt": "a star", "id": "star"},
)


def test_every_line_gets_its_images_with_its_record(defaults):
    made = outcomes(batch(defaults, *LINES))
    assert {outcome.status for outcome in made} == {"made"}
    assert sorted(p.name for p in OUT.glob("*.png")) == ["birds-1.png", "birds-2.png", "cat.png", "dog.png", "star.png"]
    record = metadata.read(OUT / "birds-2.png").record
    assert record is not None and (record.settings.seed, record.settings.negative_prompt) == (1, "blue")
    assert [each.id for each in read_manifest(OUT)] == ["cat", "dog", "birds", "star"]


def test_an_image_is_that_of_generate(defaults):
    outcomes(batch(defaults, *LINES))
    (alone,) = diffusekit.generate("a star", model=defaults.model, device="cpu", steps=2, seed=0)
    with Image.open(OUT / "star.png") as saved:
        difference = ImageChops.difference(saved, alone.image).getextrema()
    assert max(high for _, high in difference) <= 1  # of 255: they were not in the same batch


def test_the_same_command_makes_only_what_is_missing(defaults):
    outcomes(batch(defaults, *LINES))
    (OUT / "dog.png").unlink()
    before = (OUT / "cat.png").stat().st_mtime_ns
    assert [(o.id, o.status) for o in outcomes(batch(defaults, *LINES))] == [
        ("cat", "kept"),
        ("birds", "kept"),
        ("star", "kept"),
        ("dog", "made"),
    ]
    assert (OUT / "cat.png").stat().st_mtime_ns == before
    assert [(each.id, each.status) for each in read_manifest(OUT)] == [(line["id"], "made") for line in LINES]


def test_a_run_that_was_stopped_goes_on(defaults):
    first = iter(batch(defaults, *LINES))
    while next(first) is None:
        pass
    first.close()
    there = {path.name for path in OUT.glob("*.png")}
    again = outcomes(batch(defaults, *LINES))
    assert there and {o.id for o in again if o.status == "kept"} <= {Path(name).stem for name in there}
    assert len(list(OUT.glob("*.png"))) == 5


def test_an_image_with_other_settings_is_not_replaced(defaults):
    outcomes(batch(defaults, LINES[0]))
    (failed,) = outcomes(batch(defaults, LINES[0] | {"steps": 3}))
    assert failed.status == "failed" and "cat.png is there with other settings" in failed.error
    (made,) = outcomes(batch(defaults, LINES[0] | {"steps": 3}, overwrite=True))
    record = metadata.read(OUT / "cat.png").record
    assert made.status == "made" and record is not None and record.settings.steps == 3


def test_a_line_that_cannot_be_made_leaves_the_others_of_its_group(defaults):
    lines = [{"prompt": "a", "id": "a"}, {"prompt": "b", "id": "b", "width": 13}, {"prompt": "c", "id": "c"}]
    by_id = {outcome.id: outcome for outcome in outcomes(batch(defaults, *lines))}
    assert (by_id["a"].status, by_id["c"].status) == ("made", "made")
    assert by_id["b"].status == "failed" and "width must be a multiple" in by_id["b"].error


def test_a_missing_model_fails_its_lines_and_no_others(defaults):
    lines = [{"prompt": "a", "id": "a", "model": "nothing"}, {"prompt": "b", "id": "b"}]
    by_id = {outcome.id: outcome for outcome in outcomes(batch(defaults, *lines))}
    assert "there is no model 'nothing'" in by_id["a"].error and by_id["b"].status == "made"


def test_one_process_at_a_time_writes_into_a_folder(defaults):
    OUT.mkdir()
    with FileLock(OUT / ".lock"), pytest.raises(UsageError, match="another batch writes into out"):
        outcomes(batch(defaults, LINES[0]))


def test_a_damaged_manifest_is_no_obstacle(defaults):
    OUT.mkdir()
    (OUT / "manifest.jsonl").write_text('{"id": "x"}\n{"half a li')
    assert [o.status for o in outcomes(batch(defaults, LINES[0]))] == ["made"]
    assert [each.id for each in read_manifest(OUT)] == ["cat"]


# --- the command -----------------------------------------------------------------------------


def command(defaults, *more: str) -> int:
    return run(["batch", "p.jsonl", "-o", "out", "--model", defaults.model, "--device", "cpu", "--steps", "2", *more])


def test_the_command_reports_each_line_and_its_exit_code_says_that_some_failed(defaults, capsys):
    Path("p.jsonl").write_text('{"prompt": "a", "id": "a"}\nnonsense\n')
    assert command(defaults) == 11
    printed = capsys.readouterr()
    assert printed.out == "out: 1 made, 1 failed\n"
    assert "warning: line 2: is not JSON" in printed.err and "1 of 2 lines failed" in printed.err


def test_a_dry_run_makes_nothing(defaults, capsys):
    Path("p.jsonl").write_text('{"prompt": "a", "images": 4}\n{"prompt": "b"}\n')
    assert command(defaults, "--dry-run") == 0
    assert capsys.readouterr().out == "2 lines to make (5 images), 0 kept, 0 failed\n" and not OUT.exists()


def test_json_has_an_object_per_line(defaults, capsys):
    Path("p.jsonl").write_text('{"prompt": "a", "id": "a"}\n{"prompt": "b", "id": "b"}\n')
    assert command(defaults, "--json", "--format", "webp") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["id"], row["status"], row["files"]) for row in rows] == [
        ("a", "made", ["a.webp"]),
        ("b", "made", ["b.webp"]),
    ]
