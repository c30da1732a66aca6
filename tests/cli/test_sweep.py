"""`generate --sweep`: one image for each combination, and a labeled sheet that knows its axes."""

import json
from pathlib import Path

import pytest
from PIL import Image

from diffusekit import metadata
from diffusekit.cli.main import run
from diffusekit.errors import UsageError
from diffusekit.visualise.xyz_grid import parse_sweep

OUT = Path("out")


def sweep(families, *more: str, prompt: str = "a red cat") -> int:
    model = ["--model", str(families["sd1"]), "--device", "cpu", "--steps", "2", "-o", "out/"]
    return run(["generate", prompt, *model, *more])


def test_there_is_an_image_for_each_combination_and_a_sheet(families, capsys):
    assert sweep(families, "--sweep", "steps=1,2", "--sweep", "guidance=1,3", "--sweep", "prompt:red=blue,green") == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 9 and printed[-1] == "out/sheet.png"
    records = [metadata.read(Path(path)).record for path in printed[:-1]]
    made = {(r.settings.steps, r.settings.guidance_scale, r.settings.prompt, r.settings.seed) for r in records if r}
    assert made == {(s, g, f"a {c} cat", 0) for s in (1, 2) for g in (1.0, 3.0) for c in ("blue", "green")}
    record = metadata.read(OUT / "sheet.png").record
    assert record is not None
    assert record.axes == {"Steps": ("1", "2"), "Guidance": ("1", "3"), "Prompt: replace": ("blue", "green")}
    with Image.open(OUT / "sheet.png") as sheet:
        assert sheet.width > 2 * 16 and sheet.height > 4 * 16


def test_a_stopped_sweep_goes_on(families, capsys):
    assert sweep(families, "--sweep", "seed=1-3") == 0
    images = sorted(OUT.glob("a-red*.png"))
    images[0].unlink()
    kept = images[1].stat().st_mtime_ns
    assert sweep(families, "--sweep", "seed=1-3", "--json") == 0
    assert sorted(OUT.glob("a-red*.png")) == images and images[1].stat().st_mtime_ns == kept
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["sheet"] == "out/sheet.png" and sorted(printed["pictures"]) == [str(path) for path in images]


def test_any_setting_can_be_swept(families):
    assert sweep(families, "--sweep", "sampler=Euler,ddim", "--sweep", 'negative=dog,"a bird, a fish"') == 0
    records = [metadata.read(path).record for path in OUT.glob("a-red*.png")]
    assert {(r.settings.sampler, r.settings.negative_prompt) for r in records if r} == {
        (sampler, negative) for sampler in ("euler", "ddim") for negative in ("dog", "a bird, a fish")
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stepz=4", "there is no setting 'stepz' to sweep"),
        ("prompt=a,b", "needs words to replace"),
        ("images=1,2", "there is no setting 'images' to sweep"),
        ("steps", "should be SETTING=VALUES"),
        ("steps=", "should be SETTING=VALUES"),
        ("steps=0,4", "steps` should be greater than or equal to 1"),
        ("sampler=foo", "unknown sampler 'foo'"),
        ("width=wide", "width` should be a valid integer"),
    ],
)
def test_a_sweep_that_cannot_be_read_is_refused(text, says):
    with pytest.raises(UsageError) as error:
        parse_sweep(text)
    assert says in error.value.message and error.value.hint


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--sweep", "steps=1,2", "--sweep", "steps=3"], "two axes of the grid change the same setting"),
        (["--sweep", "seed=1-2000"], "the grid has 1001 images, the maximum is 1000"),
        (["--sweep", "prompt:dog=cat"], "'dog' is not in the prompt"),
        (["--sweep", "steps=1,2", "-n", "2"], "a sweep makes one image of each combination"),
        (["--sweep", "steps=1,2", "--no-metadata"], "finds its finished images by their metadata"),
        (["--sweep", "steps=1", "--sweep", "seed=1", "--sweep", "width=8", "--sweep", "height=8"], "the maximum is 3"),
        (["a dog", "--sweep", "steps=1,2"], "a sweep takes one prompt, got 2"),
    ],
)
def test_what_does_not_go_with_a_sweep_is_refused_before_any_work(families, more, says, capsys):
    assert sweep(families, *more) == 2
    assert says in capsys.readouterr().err and not OUT.exists()


def test_a_combination_that_the_model_does_not_take_fails_alone(families, capsys):
    assert sweep(families, "--sweep", "width=13,16") == 11
    printed = capsys.readouterr()
    assert "width must be a multiple of" in printed.err and "1 of 2 images failed" in printed.err
    assert len(list(OUT.glob("a-red*.png"))) == 1 and (OUT / "sheet.png").exists()
