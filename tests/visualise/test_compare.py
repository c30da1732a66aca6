"""Runs side by side: each image is the one that `generate` makes, and runs are aligned by noise level."""

import hashlib
import json
import math
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusekit import SAMPLERS, generate, visualise
from diffusekit.cli.main import run
from diffusekit.errors import UsageError
from diffusekit.visualise.compare import ComparedRun, combinations, compare, compute_progress, drop_word, render
from tests.helpers import ROOT

PROMPT = "a red cat on the grass"


def pixel_hash(image: Image.Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


@pytest.mark.slow
def test_each_image_is_the_one_that_generate_makes():
    runs = [
        {"prompt": PROMPT},
        {"prompt": "a blue dog"},
        {"prompt": PROMPT, "sampler": "euler_a", "steps": 4},
        {"prompt": PROMPT, "guidance_scale": 1.0},
        {"prompt": PROMPT, "seed": 8},
        {"prompt": PROMPT, "drop": "red"},
    ]
    figure = compare(runs, seed=5, steps=2)
    assert len({found["sha256"] for found in figure.numbers["runs"]}) == len(runs)
    for options, found in zip(runs, figure.numbers["runs"], strict=True):
        own = {"seed": 5, "steps": 2, **options}
        prompt = "a cat on the grass" if own.pop("drop", None) else own["prompt"]
        picture = generate(prompt, **{k: v for k, v in own.items() if k != "prompt"})[0]
        assert pixel_hash(picture.image) == found["sha256"]
        assert picture.record.settings.model_dump(mode="json") == found["settings"]
    sheet = figure.still()
    last = sheet.crop((sheet.width - 134, 0, sheet.width, sheet.height))
    first = generate(PROMPT, seed=5, steps=2)[0].image
    top = next(y for y in range(99) if pixel_hash(last.crop((0, y, 128, y + 128))) == pixel_hash(first))
    assert top > 0  # the last column of the first row is the picture, pixel by pixel


def test_runs_share_a_random_seed_when_none_is_given():
    found = compare([{"steps": 1}, {"steps": 2}], prompt="a cat").numbers["runs"]
    assert found[0]["settings"]["seed"] == found[1]["settings"]["seed"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_progress_rises_from_noise_to_image(name, mini):
    trace = visualise.record_trace("a cat", seed=1, steps=5, sampler=name, guidance_scale=1)
    progress = compute_progress(trace)
    assert len(progress) == len(trace.steps)
    assert list(progress) == sorted(progress) and 0 <= progress[0] < 0.01 and progress[-1] < 1
    for moment, p in zip(trace.steps, progress, strict=True):
        if name not in (
            "dpm++_2m_karras",
            "heun",
            "pndm",
        ):  # whose timesteps are rounded, or repeat
            assert p == pytest.approx(1 - (moment.timestep + 1) / 1000, abs=1e-3)


def test_runs_are_aligned_at_equal_noise():
    few = visualise.record_trace(PROMPT, seed=2, steps=4, sampler="ddim")
    many = visualise.record_trace(PROMPT, seed=2, steps=8, sampler="ddim")
    runs = [ComparedRun(t, {}, compute_progress(t)) for t in (few, many)]
    for i, p in enumerate(runs[0].progress):
        assert runs[0].index_at(p) == i and runs[1].index_at(p) == 2 * i
        assert torch.equal(runs[1].latents(p), many.steps[2 * i].x_t_unit)
    between = (runs[0].progress[1] + runs[0].progress[2]) / 2
    middle = (few.steps[1].x_t_unit + few.steps[2].x_t_unit) / 2
    assert torch.allclose(runs[0].latents(between), middle, atol=1e-4)
    assert torch.equal(runs[0].latents(1.0), few.steps[-1].x_next.float())
    found = render(runs).numbers
    assert found["progress"] == [*runs[1].progress, 1.0]
    differences = found["runs"][1]["rms_difference"]
    assert differences[0] == 0 < min(differences[2:]) and set(found["runs"][0]["rms_difference"]) == {0}
    known = few.steps[-1].x_next.float() - many.steps[-1].x_next.float()
    assert differences[-1] == pytest.approx(float(known.square().mean().sqrt()))


def test_the_difference_of_images_is_measured_in_pixels():
    figure = compare([{"guidance_scale": 1}, {"guidance_scale": 4}], prompt=PROMPT, seed=3, steps=2)
    made = [generate(PROMPT, seed=3, steps=2, guidance_scale=g)[0].image for g in (1, 4)]
    pairs = zip(*(picture.tobytes() for picture in made), strict=True)
    mean = sum(abs(a - b) for a, b in pairs) / len(made[0].tobytes())
    assert figure.numbers["runs"][1]["pixel_difference"] == pytest.approx(mean, rel=1e-4)
    assert figure.numbers["runs"][0]["pixel_difference"] == 0


def test_labels_say_what_differs_and_nothing_else():
    runs = combinations(drop=[None, "red"], steps=[1, 2])
    found = [r["label"] for r in compare(runs, prompt=PROMPT, seed=1).numbers["runs"]]
    assert found == ["whole prompt\nsteps 1", "whole prompt\nsteps 2", "without red\nsteps 1", "without red\nsteps 2"]
    runs = combinations(sampler=["ddim"], guidance_scale=[1.5, 2.5], seed=[0])
    found = [r["label"] for r in compare(runs, prompt=PROMPT, steps=1).numbers["runs"]]
    assert found == ["guidance 1.5", "guidance 2.5"]


@pytest.mark.slow
def test_frames_have_one_size_and_the_last_shows_the_final_images(tmp_path):
    figure = compare([{"steps": 2}, {"steps": 3}], prompt=PROMPT, seed=1)
    frames = list(figure.film())
    assert len(frames) == 4 == len(figure.numbers["progress"])
    assert len({frame.size for frame in frames}) == 1
    assert len({frame.tobytes() for frame in frames}) == 4
    with Image.open(figure.save(tmp_path / "two.webp")) as film:
        assert film.n_frames == 4
    assert b"trainedAlgorithmicMedia" in (tmp_path / "two.webp").read_bytes()


def test_runs_with_and_without_a_learned_token(capsys):
    Path("embeddings").mkdir()
    shutil.copy(ROOT / "embeddings" / "my_robot.safetensors", "embeddings")
    words = [
        "visualise",
        "compare",
        "a photo of S* on grass",
        "--drop",
        "S*",
        "--steps",
        "1",
        "--seed",
        "1",
    ]
    assert run([*words, "--json"]) == 0
    whole, dropped = json.loads(capsys.readouterr().out)["runs"]
    assert whole["settings"]["embedding"] == ["my_robot"]
    assert dropped["settings"]["prompt"] == "a photo of on grass" and dropped["dropped"] == ["S*"]
    assert dropped["pixel_difference"] > 0


def test_a_word_is_dropped_everywhere():
    assert drop_word("RED", "A red cat, reddish, Red.") == "A cat, reddish, ."
    assert drop_word("snowflake", "a snowflake falls") == "a falls"
    with pytest.raises(UsageError) as caught:
        drop_word("blue", PROMPT)
    assert caught.value.hint == "the words are a, red, cat, on, the, grass"
    with pytest.raises(UsageError):
        drop_word("", PROMPT)


def test_combinations_lists_every_combination_once():
    assert combinations(steps=[1, 2], seed=[7, 7, 8]) == [
        {"steps": 1, "seed": 7},
        {"steps": 1, "seed": 8},
        {"steps": 2, "seed": 7},
        {"steps": 2, "seed": 8},
    ]
    assert len(combinations(seed=range(12))) == 12
    for wrong in (
        {"seed": [1, 1]},
        {"seed": range(13)},
        {"steps": range(10**6), "seed": range(10**6)},
    ):
        with pytest.raises(UsageError, match="2 to 12"):
            combinations(**wrong)


def test_bad_runs_are_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(
        sys.modules["diffusekit.visualise.compare"], "stream", lambda *_, **__: pytest.fail("work was started")
    )
    for runs in (
        [],
        [{}],
        [{}] * 13,
        [{"width": 64}, {}],
        [{}, {"model": "other"}],
        [{}, {"sampler": "eulr"}],
        [{}, {"steps": 0}],
        [{}, {"guidance_scale": math.nan}],
        [{}, {"drop": "owl"}],
        [{}, {"drop": ["red", "owl"]}],
    ):
        with pytest.raises(UsageError):
            compare(runs, prompt=PROMPT)


def test_the_command(capsys):
    words = ["visualise", "compare", "a red cat", "a blue cat", "--seed", "2", "--steps", "1"]
    assert run([*words, "-o", "two.png"]) == 0
    assert capsys.readouterr().out == "two.png\n"
    found = [*words, "--sampler", "ddim", "--sampler", "euler", "--guidance", "1", "--json"]
    assert run(found) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [r["label"] for r in runs] == [
        "“a red cat”\nddim",
        "“a red cat”\neuler",
        "“a blue cat”\nddim",
        "“a blue cat”\neuler",
    ]
    assert {r["settings"]["guidance_scale"] for r in runs} == {1.0}


def test_bad_commands(capsys):
    for words, says in (
        (["a cat"], "cannot compare 1 run"),
        (["a cat", *(f for i in range(13) for f in ("--seed", str(i)))], "cannot compare 13 runs"),
        (["a red cat", "--drop", "owl"], "the words are a, red, cat"),
        (["a cat", "--steps", "0", "--steps", "2"], "steps"),
        (["a cat", "--sampler", "eulr", "--sampler", "ddim"], "did you mean"),
        (["a cat", "a dog", "-o", "x.svg"], "endings"),
        (["x" * 1_000_000, "a dog"], "characters"),
    ):
        assert run(["visualise", "compare", *words]) == 2, words
        said = capsys.readouterr().err
        assert says in said and said.count("\n") == 2 and len(said) < 500
    assert not Path("outputs").exists()
