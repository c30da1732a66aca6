"""The reverse process as still, film and numbers, and the formats that a visualization can be saved in."""

import json

import pytest
import torch
from PIL import Image, ImageColor

from diffusekit import read_metadata, visualise
from diffusekit.cli.main import run
from diffusekit.errors import UsageError
from diffusekit.visualise import Visualization, contact_sheet


@pytest.fixture(scope="module")
def figure():
    return visualise.denoise("a red cat on the grass", seed=1, steps=3)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_still_carries_the_record_of_the_image(figure, tmp_path, ending):
    path = figure.save(tmp_path / f"cat.{ending}")
    found = read_metadata(path)
    assert found.settings.prompt == "a red cat on the grass" and found.settings.seed == 1
    assert found.label
    with Image.open(path) as sheet:
        assert sheet.width > 4 * 128


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["webp", "apng", "gif"])
def test_a_film_has_a_frame_for_every_step_and_the_final_image(figure, tmp_path, ending):
    path = figure.save(tmp_path / f"cat.{ending}")
    with Image.open(path) as film:
        assert film.n_frames == 4
        sizes, frames = set(), []
        for i in range(film.n_frames):
            film.seek(i)
            sizes.add(film.size)
            frames.append(film.convert("RGB").tobytes())
        assert len(sizes) == 1 and len(set(frames)) == 4
    if ending != "gif":
        assert b"trainedAlgorithmicMedia" in path.read_bytes()


def test_numbers_are_finite_json(figure, tmp_path):
    found = json.loads(figure.save(tmp_path / "cat.json").read_text())
    assert [s["step"] for s in found["steps"]] == [1, 2, 3]
    assert found["settings"]["prompt"] == "a red cat on the grass"
    assert found["steps"][0]["alpha_bar"] < found["steps"][-1]["alpha_bar"]


@pytest.mark.slow
def test_without_guidance_there_are_fewer_rows():
    plain = visualise.denoise("a cat", seed=1, steps=2, guidance_scale=1).still()
    guided = visualise.denoise("a cat", seed=1, steps=2, guidance_scale=3).still()
    assert plain.height < guided.height


def test_an_unknown_ending_is_refused_and_the_hint_lists_the_known_ones(figure, tmp_path):
    with pytest.raises(UsageError) as caught:
        figure.save(tmp_path / "cat.txt")
    assert ".webp" in caught.value.hint
    assert not list(tmp_path.glob("cat*"))


def test_no_file_is_overwritten_unless_asked(figure, tmp_path):
    path = tmp_path / "cat.json"
    path.write_text("mine")
    with pytest.raises(UsageError):
        figure.save(path)
    assert path.read_text() == "mine"
    figure.save(path, overwrite=True)
    assert "steps" in json.loads(path.read_text())


def test_a_visualization_draws_only_when_asked():
    drawn = []
    made = Visualization({}, still=lambda: drawn.append(1) or Image.new("RGB", (8, 8)))
    assert not drawn and made.endings == (".png", ".jpg", ".jpeg", ".json")
    assert made._repr_png_() and drawn == [1]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["visualise", "visualize"])
def test_the_verb_writes_and_prints_a_path(verb, capsys):
    assert run([verb, "denoise", "a cat", "--steps", "2", "--seed", "1", "-q"]) == 0
    (path,) = capsys.readouterr().out.split()
    assert path.startswith("outputs") and path.endswith("denoise-00001.png")
    with Image.open(path) as picture:
        picture.load()


def test_json_prints_the_numbers_and_writes_nothing(capsys, tmp_path):
    assert run(["visualise", "denoise", "a cat", "--steps", "2", "--seed", "1", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["steps"]) == 2
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["-o", "x.bmp"], "endings"),
        (["-o", "there.png"], "overwrite"),
        (["--steps", "0"], "steps"),
        (["--sampler", "eulr"], "euler"),
    ],
)
def test_bad_input_is_refused_before_any_work(more, says, capsys, tmp_path):
    (tmp_path / "there.png").write_text("mine")
    assert run(["visualise", "denoise", "a cat", *more]) == 2
    error = capsys.readouterr().err
    assert says in error and "Traceback" not in error
    assert [p.name for p in tmp_path.iterdir()] == ["there.png"]


def test_a_prompt_of_a_megabyte_is_refused(capsys):
    assert run(["visualise", "denoise", "cat " * 250_000]) == 2
    assert len(capsys.readouterr().err) < 500


def test_an_mp4_needs_a_package_and_the_command_checks_before_any_work(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("diffusekit.visualise.figure.find_spec", lambda name: None)
    assert run(["visualise", "denoise", "a cat", "-o", "x.mp4"]) == 2
    assert "imageio-ffmpeg" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("count", "across", "down"), [(1, 1, 1), (4, 2, 2), (6, 3, 2), (16, 4, 4)])
def test_channels_fill_a_square_in_order(count, across, down):
    levels = torch.linspace(-3, 3, count)[:, None, None].expand(count, 2, 2)
    sheet = contact_sheet.channel_grid(levels, 96)
    assert sheet.size == (96, 96)
    edge, top = 96 // across, (96 - 96 // across * down) // 2
    for i, level in enumerate(levels):
        middle = i % across * edge + edge // 2, top + i // across * edge + edge // 2
        assert sheet.getpixel(middle) == contact_sheet.signed_map(level, vmax=3.0).getpixel((0, 0))
    assert top == 0 or sheet.getpixel((48, top - 1)) == ImageColor.getrgb(contact_sheet.PAPER)
