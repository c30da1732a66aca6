"""Names of images: refused before any work where they cannot be written, and made safe where a prompt makes them."""

import os
import sys
from pathlib import Path

import pytest

from diffusekit import atomic
from diffusekit.cli import generate
from diffusekit.cli.main import run
from diffusekit.cli.output import Destination
from diffusekit.display import file_words
from diffusekit.errors import DiskError, UsageError

REFUSED = [
    ("x" * 252 + ".png", "has 256 bytes, expected at most 255"),
    ("猫" * 84 + ".png", "has 256 bytes, expected at most 255"),
    ("a/" * 3000 + "x.png", "is too long"),
    ("x" * 300, "has 304 bytes"),
    ("x" * 300 + "/", "is too long: 300 bytes in one name"),
    ("file/x.png", "file is a file, so there cannot be file/x.png"),
    ("file/deeper/x.png", "file is a file, so there cannot be"),
    ("file/", "file is a file, so there cannot be"),
    ("cat.tiff", "does not end like an image"),
    (".png", "has an ending and no name"),
    ("-", "images cannot be written to stdout"),
    ("", "--output is empty"),
    (" ", "--output is empty"),
    ("x\0.png", "cannot be the name of a file"),
    ("there.png", "there.png already exists"),
]


@pytest.fixture(autouse=True)
def _no_work(monkeypatch):
    """No model is loaded: what is refused is refused before."""
    monkeypatch.setattr("diffusekit.pipeline.Generation", None)


@pytest.mark.parametrize("output,message", REFUSED, ids=[row[1][:30] + row[0][:9] for row in REFUSED])
def test_a_name_that_cannot_be_written_is_refused_before_any_work(capsys, output, message):
    Path("file").write_text("")
    Path("there.png").write_text("")
    assert run(["generate", "a cat", "-o", output]) == 2
    error = capsys.readouterr().err
    assert message in error and "\nhint: " in error and error.startswith("error: ")


@pytest.mark.skipif(sys.platform == "win32", reason="devices are POSIX")
def test_devices_are_refused():
    with pytest.raises(UsageError, match="is not a regular file"):
        atomic.check_destination(Path("/dev/null"))


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_a_disk_error(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(DiskError, match="no permission"):
        Destination("locked/x.png", None, 1)


def test_a_read_only_folder_is_a_disk_error(monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(DiskError, match=r"cannot write in \.: no permission"):
        Destination("new/x.png", None, 1)


@pytest.mark.parametrize(
    "output,name",
    [
        ("cat", "cat.png"),
        ("cat.", "cat.png"),
        ("cat..", "cat.png"),
        ("cat.JPG", "cat.JPG"),
        ("a.b.webp", "a.b.webp"),
        (".hidden", ".hidden.png"),
        ("new/cat", "new/cat.png"),
        ("x" * 251, "x" * 251 + ".png"),
        ("猫" * 83 + ".png", "猫" * 83 + ".png"),
    ],
)
def test_a_name_gets_one_ending(output, name):
    assert Destination(output, None, 1).next("a prompt", 7) == Path(name)


def test_the_longest_names_can_be_written():
    for name in ("x" * 251 + ".png", "猫" * 83 + ".png"):
        assert atomic.write_atomic(Path(name), b"data").read_bytes() == b"data"
    assert not [path for path in Path().iterdir() if path.suffix == ".new"]


def test_numbers_count_for_the_length():
    assert Destination("x" * 251, None, 1).next("", 7).name == "x" * 251 + ".png"
    with pytest.raises(UsageError, match="has 257 bytes"):
        Destination("x" * 251, None, 4)


@pytest.mark.parametrize(
    "prompt,words",
    [
        ("A red cat!", "a-red-cat"),
        ("草地上的红猫", "草地上的红猫"),
        ("Кошка на траве", "кошка-на-траве"),
        ("قطة حمراء", "قطة-حمراء"),
        ("हिन्दी में बिल्ली", "हिन्दी-में-बिल्ली"),
        ("e\u0301te\u0301", "été"),
        ("猫" * 60, "猫" * 40),
        ("🐈", ""),
        ("../../etc/passwd", "etc-passwd"),
        ("a\u202eb\0c\nd", "a-b-c-d"),
        ("my_cat", "my_cat"),
        ("\udcff x", "x"),
        ("", ""),
    ],
)
def test_words_of_any_script_are_in_the_name(prompt, words):
    assert file_words(prompt) == words
    assert Destination(None, None, 1).next(prompt, 7).name == f"00001-7-{words or 'image'}.png"


def test_overwrite_has_no_effect_in_a_folder(capsys, monkeypatch):
    monkeypatch.setattr(generate, "run", lambda settings, prompts, options, *images: options.destination(1))
    assert run(["generate", "a cat", "--overwrite"]) == 0
    assert capsys.readouterr().err == "warning: --overwrite has no effect: images in a folder get new names\n"
    assert run(["generate", "a cat", "--overwrite", "-o", "cat.png"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("verb", [["denoise", "a cat"], ["samplers", "--no-path"], ["noise", "x.png"]])
def test_visualisers_check_names_before_any_work(capsys, verb):
    assert run(["visualise", *verb, "-o", "x" * 252 + ".png"]) == 2
    assert "has 256 bytes, expected at most 255" in capsys.readouterr().err


def test_a_label_is_left_out_only_with_the_settings(capsys, monkeypatch):
    monkeypatch.setattr(generate, "run", lambda settings, prompts, options, *images: options.destination(1))
    assert run(["generate", "a cat", "--no-label"]) == 0
    assert "warning: --no-label has no effect without --no-metadata" in capsys.readouterr().err
    assert run(["generate", "a cat", "--no-label", "--no-metadata"]) == 0
    assert capsys.readouterr().err == ""


def test_settings_of_paths_have_no_effect_without_paths(capsys):
    assert run(["visualise", "samplers", "--no-path", "--prompt", "a cat", "--seed", "3", "-o", "x.tiff"]) == 2
    assert "warning: no effect with --no-path, which draws no image: --prompt, --seed" in capsys.readouterr().err
