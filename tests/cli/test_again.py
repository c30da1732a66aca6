"""`info` and `again` of other programs' images: what is not known is named, and nothing is drawn in silence."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusekit import metadata
from diffusekit.cli.main import run
from tests.helpers.foreign_images import comfy, ksampler, node, png

QUICK = ["--steps", "1", "--size", "64x64", "-q", "-o", "x.png"]
LINE = "Steps: 1, Sampler: Euler a, CFG scale: 2, Seed: 99, Size: 64x64"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def drawn():
    """The settings of the image that was drawn."""
    record = metadata.read(Path("x.png")).record
    assert record is not None
    return record.settings


def image(prompt="a red cat", line=LINE):
    return str(png(Path("theirs.png"), parameters=f"{prompt}\n{line}"))


def test_an_image_that_is_wholly_known_is_drawn_without_a_warning(capsys):
    assert run(["again", image(), "-q", "-o", "x.png"]) == 0
    assert capsys.readouterr().err == ""
    own = drawn()
    assert (own.prompt, own.steps, own.sampler, own.seed, own.guidance_scale) == ("a red cat", 1, "euler_a", 99, 2)
    assert (
        run(["generate", "a red cat", "--guidance", "2", "--sampler", "euler_a", "--seed", "99", *QUICK[:-1], "y.png"])
        == 0
    )
    assert (np.asarray(Image.open("x.png")) == np.asarray(Image.open("y.png"))).all()


LINKED = comfy(n6=node("CLIPTextEncode", text=["20", 0], clip=["4", 1]), n20=node("Wildcards", text="x", seed=1))


def test_an_unknown_prompt_is_shown_refused_and_can_be_given(capsys):
    png(Path("theirs.png"), prompt=LINKED)
    assert run(["info", "theirs.png"]) == 0
    assert "unknown (comes from node 20 of class Wildcards)" in capsys.readouterr().out
    assert run(["again", "theirs.png", *QUICK]) == 3
    err = capsys.readouterr().err
    assert "the prompt of theirs.png is unknown: it comes from node 20 of class Wildcards" in err
    assert "hint: give it with --prompt" in err and not Path("x.png").exists()
    assert run(["again", "theirs.png", "--prompt", "a blue car", *QUICK]) == 0
    assert drawn().prompt == "a blue car"


@pytest.mark.slow
@pytest.mark.parametrize(
    "change,words,flags",
    [
        (
            "Sampler: DPM++ SDE Karras",
            ["'DPM++ SDE Karras'", "the model's default is used", "--sampler"],
            ["--sampler", "euler"],
        ),
        (
            "Sampler: Euler, Schedule type: Karras",
            ["karras", "the model's default is used", "--sampler"],
            ["--sampler", "euler"],
        ),
        ("Seed: -1", ["'-1'", "a random one is used", "--seed"], ["--seed", "4"]),
        (f"Seed: {2**80}", [str(2**80), "a random one is used", "--seed"], ["--seed", "4"]),
        ("CFG scale: -2", ["'-2'", "the model's default is used", "--guidance"], ["--guidance", "2"]),
        ("Steps: 9999", ["'9999'", "20 are taken", "--steps"], ["--steps", "1"]),
        ("Size: 70x64", ["70x64", "multiples of", "is used", "--size"], ["--size", "64x64"]),
        ("Size: 4x4", ["'4'", "the model's native size is used", "--width"], ["--size", "64x64"]),
    ],
)
def test_what_cannot_be_used_is_named_until_a_flag_settles_it(capsys, change, words, flags):
    key = change.partition(":")[0]
    path = image(line=", ".join(change if pair.startswith(key) else pair for pair in LINE.split(", ")))
    quick = [] if key == "Steps" else ["--steps", "1"]
    if key != "Steps":  # twenty steps are a long test
        assert run(["again", path, *quick, "-q", "-o", "x.png"]) == 0
        err = capsys.readouterr().err
        assert err.startswith("warning: ") and all(word in err for word in words), err
        assert err.count("warning") == 1
    assert run(["again", path, *quick, *flags, "-q", "--overwrite", "-o", "x.png"]) == 0
    assert capsys.readouterr().err == ""


def test_what_has_no_effect_here_is_named(capsys):
    path = image(line=f"{LINE}, Model hash: ab, Model: foo, Clip skip: 2, Hires upscale: 2, Version: v1.10.1")
    assert run(["again", path, *QUICK]) == 0
    err = capsys.readouterr().err
    assert "Model foo, Clip skip 2, Hires upscale 2" in err and "v1.10.1" not in err


def test_prompts_of_a1111_are_read_in_its_syntax_unless_it_was_off(capsys):
    path = image(prompt="a (red:1.3) cat")
    assert run(["again", path, *QUICK]) == 0
    assert drawn().prompt_syntax == "a1111" and capsys.readouterr().err == ""
    path = image(prompt="a (red:1.3) cat", line=f"{LINE}, Emphasis: None")
    assert run(["again", path, *QUICK[:-1], "y.png"]) == 0
    path = image(prompt="a (red:1.3) cat", line=f"{LINE}, Version: diffusekit 0.5.0")
    assert run(["again", path, *QUICK[:-1], "z.png"]) == 0
    assert capsys.readouterr().err.count("read as plain text") == 2
    for name in ("y.png", "z.png"):
        record = metadata.read(Path(name)).record
        assert record is not None and record.settings.prompt_syntax == "plain"


def test_an_empty_prompt_and_a_missing_seed_are_named(capsys):
    path = str(png(Path("theirs.png"), prompt=comfy(n3=ksampler(seed=["99", 0]), n6=node("CLIPTextEncode", text=""))))
    assert run(["again", path, *QUICK]) == 0
    err = capsys.readouterr().err
    assert "the prompt of the image is empty" in err
    assert "the seed of the image comes from node 99, which is not in the file: a random one is used" in err


def test_a_prompt_alone_is_shown_but_not_drawn(capsys):
    png(Path("theirs.png"), parameters="lighting: soft, mood: dark, lens: 50mm")
    assert run(["info", "theirs.png"]) == 0
    assert "lighting: soft, mood: dark, lens: 50mm" in capsys.readouterr().out
    assert run(["again", "theirs.png", *QUICK]) == 3


def test_json_that_nobody_here_wrote_is_not_shown_as_a_prompt(capsys):
    png(Path("theirs.png"), parameters={"hello": "world"})
    assert run(["info", "theirs.png"]) == 3
    assert "does not say how it was made" in capsys.readouterr().err
