"""The reverse process as sheet, film and numbers; and what exhibits can be saved as."""

import json

import pytest
import torch
from PIL import Image, ImageColor

from diffusekit import read_metadata, visualise
from diffusekit.cli.main import run
from diffusekit.errors import UsageError
from diffusekit.visualise import Visualization, contact_sheet


@pytest.fixture(scope="module")
def exhibit():
    return visualise.denoise("a red cat on the grass", seed=1, steps=3)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_sheet_says_how_the_picture_was_made(exhibit, tmp_path, ending):
    path = exhibit.save(tmp_path / f"way.{ending}")
    found = read_metadata(path)
    assert found.settings.prompt == "a red cat on the grass" and found.settings.seed == 1
    assert found.label
    with Image.open(path) as sheet:
        assert sheet.width > 4 * 128


@pytest.mark.parametrize("ending", ["webp", "apng", "gif"])
def test_a_film_has_a_frame_for_every_step_and_the_picture(exhibit, tmp_path, ending):
    path = exhibit.save(tmp_path / f"way.{ending}")
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


def test_numbers_are_finite_json(exhibit, tmp_path):
    found = json.loads(exhibit.save(tmp_path / "way.json").read_text())
    assert [s["step"] for s in found["steps"]] == [1, 2, 3]
    assert found["settings"]["prompt"] == "a red cat on the grass"
    assert found["steps"][0]["alpha_bar"] < found["steps"][-1]["alpha_bar"]


def test_without_guidance_there_are_fewer_rows():
    plain = visualise.denoise("a cat", seed=1, steps=2, guidance_scale=1).still()
    guided = visualise.denoise("a cat", seed=1, steps=2, guidance_scale=3).still()
    assert plain.height < guided.height


def test_another_ending_is_refused_and_says_which_there_are(exhibit, tmp_path):
    with pytest.raises(UsageError) as caught:
        exhibit.save(tmp_path / "way.txt")
    assert ".webp" in caught.value.hint
    assert not list(tmp_path.glob("way*"))


def test_no_file_is_overwritten_unless_asked(exhibit, tmp_path):
    path = tmp_path / "way.json"
    path.write_text("mine")
    with pytest.raises(UsageError):
        exhibit.save(path)
    assert path.read_text() == "mine"
    exhibit.save(path, overwrite=True)
    assert "steps" in json.loads(path.read_text())


def test_an_exhibit_draws_only_when_asked():
    drawn = []
    made = Visualization({}, still=lambda: drawn.append(1) or Image.new("RGB", (8, 8)))
    assert not drawn and made.endings == (".png", ".jpg", ".jpeg", ".json")
    assert made._repr_png_() and drawn == [1]


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
    told = capsys.readouterr().err
    assert says in told and "Traceback" not in told
    assert [p.name for p in tmp_path.iterdir()] == ["there.png"]


def test_a_prompt_of_a_megabyte_is_refused(capsys):
    assert run(["visualise", "denoise", "cat " * 250_000]) == 2
    assert len(capsys.readouterr().err) < 500


def test_a_film_as_mp4_needs_a_package_and_says_so_before_any_work(capsys, monkeypatch, tmp_path):
    from diffusekit.cli.visualise import options

    monkeypatch.setattr(options, "find_spec", lambda name: None)
    assert run(["visualise", "denoise", "a cat", "-o", "x.mp4"]) == 2
    assert "imageio-ffmpeg" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("count", "across", "down"), [(1, 1, 1), (4, 2, 2), (6, 3, 2), (16, 4, 4)])
def test_channels_lie_in_a_square_in_order(count, across, down):
    levels = torch.linspace(-3, 3, count)[:, None, None].expand(count, 2, 2)
    sheet = contact_sheet.channel_grid(levels, 96)
    assert sheet.size == (96, 96)
    edge, top = 96 // across, (96 - 96 // across * down) // 2
    for i, level in enumerate(levels):
        middle = i % across * edge + edge // 2, top + i // across * edge + edge // 2
        assert sheet.getpixel(middle) == contact_sheet.signed_map(level, most=3.0).getpixel((0, 0))
    assert top == 0 or sheet.getpixel((48, top - 1)) == ImageColor.getrgb(contact_sheet.PAPER)
