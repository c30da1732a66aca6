"""The command line, as people use it: paths on stdout, the rest on stderr, exit codes that mean something."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusekit import metadata
from diffusekit.cli import generate, main
from diffusekit.cli.main import StopSignal, run
from diffusekit.errors import DiffusekitError

QUICK = ["--steps", "2", "--seed", "7", "--device", "cpu"]


def diffusekit(*arguments: str, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "diffusekit", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        **more,
    )


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.slow
def test_a_new_process_generates_an_image(tmp_path):
    done = diffusekit("generate", "A beautiful galaxy", *QUICK)
    assert done.returncode == 0 and done.stderr == ""
    path = Path(done.stdout.strip())
    assert path.parent.parent == Path("outputs") and path.name == "00001-7-a-beautiful-galaxy.png"
    assert pixels(tmp_path / path).shape == (128, 128, 3)


@pytest.mark.slow
def test_again_gives_the_same_pixels(capsys):
    assert run(["generate", "a red cat", *QUICK, "-o", "cat.png"]) == 0
    assert run(["again", "cat.png", "-o", "twin.png"]) == 0
    assert run(["again", "cat.png", "--seed", "8", "--size", "64x64", "-o", "other.png"]) == 0
    assert capsys.readouterr().out.split() == ["cat.png", "twin.png", "other.png"]
    assert (pixels("cat.png") == pixels("twin.png")).all()
    assert pixels("other.png").shape == (64, 64, 3)
    record = metadata.read(Path("other.png")).record
    assert record is not None and record.settings.seed == 8 and record.settings.prompt == "a red cat"


def test_info_shows_how_an_image_was_made(capsys):
    run(["generate", "a red cat", *QUICK, "-o", "cat.webp"])
    capsys.readouterr()
    assert run(["info", "cat.webp"]) == 0
    out = capsys.readouterr().out
    assert "a red cat" in out and "seed" in out and "trainedAlgorithmicMedia" in out
    assert run(["info", "cat.webp", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["record"]["settings"]["prompt"] == "a red cat"


@pytest.mark.slow
def test_json_is_one_object(capsys):
    assert run(["generate", "a red cat", "a blue car", "-n", "2", *QUICK, "--json", "-o", "x/"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(p["prompt"], p["seed"]) for p in found["pictures"]] == [
        ("a red cat", 7),
        ("a red cat", 8),
        ("a blue car", 7),
        ("a blue car", 8),
    ]
    assert [Path(p["path"]).name[:5] for p in found["pictures"]] == [
        "00001",
        "00002",
        "00003",
        "00004",
    ]
    assert all(Path(p["path"]).exists() for p in found["pictures"]) and found["seconds"] > 0


@pytest.mark.slow
def test_prompts_from_stdin_and_file(capsys, monkeypatch):
    Path("list.txt").write_text("a red cat\n\na blue car\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("a green tree\n"))
    assert run(["generate", "-", "--prompts", "list.txt", *QUICK, "-o", "p.png"]) == 0
    assert capsys.readouterr().out.split() == ["p-1.png", "p-2.png", "p-3.png"]
    prompts = [metadata.read(Path(f"p-{i}.png")).record.settings.prompt for i in (1, 2, 3)]  # type: ignore[union-attr]
    assert prompts == ["a green tree", "a red cat", "a blue car"]


def test_metadata_and_label_can_be_left_out(capsys):
    for flags, record, label in (
        (["--no-metadata"], False, True),
        (["--no-metadata", "--no-label"], False, False),
        (["--no-label"], True, True),
    ):
        assert run(["generate", "a red cat", *QUICK, "--format", "jpeg", "-o", "j/", *flags]) == 0
        found = metadata.read(Path(capsys.readouterr().out.strip()))
        assert (found.record is not None, found.label) == (record, label)


def test_existing_files_are_kept_unless_overwrite_is_given(capsys):
    assert run(["generate", "a red cat", *QUICK, "-o", "x.png"]) == 0
    before = Path("x.png").read_bytes()
    assert run(["generate", "a blue car", *QUICK, "-o", "x.png"]) == 2
    assert "x.png already exists" in capsys.readouterr().err and Path("x.png").read_bytes() == before
    assert run(["generate", "a blue car", *QUICK, "-o", "x.png", "--overwrite"]) == 0
    assert Path("x.png").read_bytes() != before


BAD = [
    (["generate"], 2, "no prompt was given", "A beautiful galaxy"),
    (["generate", "x", "--steps", "0"], 2, "--steps should be greater than or equal to 1", "Denoising steps"),
    (["generate", "x", "--sampler", "eulr"], 2, "did you mean euler?", "Sampling algorithm"),
    (["generate", "x", "--size", "big"], 2, "WIDTHxHEIGHT", "--size 512x768"),
    (["generate", "x", "--size", "64x64", "--width", "64"], 2, "together with", "leave out"),
    (["generate", "x", "--width", "100"], 2, "multiple of 32", "try 96 or 128"),
    (["generate", "x", "--device", "cuda"], 2, "not available", "this machine has: cpu"),
    (["generate", "x", "--output", "x.txt"], 2, "does not end like an image", ".png"),
    (["generate", "x", "--format", "gif"], 2, "unknown image format 'gif'", "png, jpeg, webp"),
    (["generate", "x", "--output", "x.png", "--format", "webp"], 2, "contradict", "leave out"),
    (["generate", "x", "--prompts", "nothing.txt"], 2, "cannot read nothing.txt", "one prompt per line"),
    (["generate", "x", "--model", "nothing"], 8, "there is no model 'nothing'", "available: mini"),
    (["generate", "x" * 20_001], 2, "at most 20000 characters", "What the image shows"),
    (["generate", "x", "--stpes", "3"], 2, "No such option: --stpes", "--help"),
    (["paint"], 2, "No such command", "--help"),
    (["info", "nothing.png"], 3, "cannot open nothing.png", "path of an image"),
    (["again", "empty.png"], 3, "not an image", "PNG"),
]


@pytest.mark.parametrize("arguments,code,message,hint", BAD, ids=[" ".join(row[0])[:40] for row in BAD])
def test_bad_input_gives_a_message_a_hint_and_an_exit_code(capsys, arguments, code, message, hint):
    Path("empty.png").write_bytes(b"")
    assert run(arguments) == code
    out, err = capsys.readouterr()
    first, rest = err.splitlines()[0], " ".join(err.splitlines()[1:])
    assert first.startswith("error: ") and message in first
    assert rest.startswith("hint: ") and hint in rest
    assert out == "" and "Traceback" not in err and not Path("outputs").exists()


def test_an_image_without_metadata_is_refused(capsys):
    Image.new("RGB", (8, 8)).save("plain.png")
    assert run(["info", "plain.png"]) == 3
    assert run(["again", "plain.png"]) == 3
    assert "does not say how it was made" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(capsys):
    Path("file").write_text("")
    assert run(["generate", "a red cat", *QUICK, "-o", "file/x.png"]) == 2
    assert "file is a file, so there cannot be file/x.png" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("stop,code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_keeps_finished_images(tmp_path, stop, code):
    child = subprocess.Popen(
        [sys.executable, "-m", "diffusekit", "generate", "a red cat", "-n", "500", *QUICK, "-o", "many/"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    first = child.stdout.readline().strip()
    assert first, child.stderr.read() if child.stderr else ""
    started = time.monotonic()
    child.send_signal(stop)
    rest, err = child.communicate(timeout=60)
    assert child.returncode == code and time.monotonic() - started < 20
    assert "finished files are kept" in err and "Traceback" not in err
    saved = sorted(p for p in Path("many").iterdir())
    unsaid = {str(p) for p in saved} ^ {first, *rest.split()}
    assert len(unsaid) <= 1, "at most one file was written and not yet printed"
    assert all(Path(path).exists() for path in unsaid)
    assert all(pixels(p).shape == (128, 128, 3) for p in saved)


def test_doctor_and_models(capsys):
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "mini" in out and "sdpa and math run on cpu" in out and "BAD" not in out
    assert run(["models", "list", "--json"]) == 0
    (row, *_) = json.loads(capsys.readouterr().out)["models"]
    assert row["name"] == "mini" and row["embedded"] and row["size_mb"] <= 64


def test_doctor_reports_what_is_broken(capsys, monkeypatch):
    from diffusekit import hub

    monkeypatch.setattr(hub, "MINI", Path("gone"))
    assert run(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "BAD  mini" in out and "hint: reinstall" in out


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("diffusekit 0.")


def test_errors_and_warnings_name_flags(capsys, monkeypatch):
    def fail(*_, **__):
        logging.getLogger("diffusekit.pipeline").warning("reduced `batch` to 1")
        raise DiffusekitError("`steps` is too small", "increase `steps`, or set `guidance_scale`")

    monkeypatch.setattr(generate, "run", fail)
    assert run(["generate", "a red cat"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "warning: reduced --batch to 1",
        "error: --steps is too small",
        "hint: increase --steps, or set --guidance",
    ]


def test_any_prompt_gives_a_safe_file_name(capsys):
    assert run(["generate", "../../é 猫 <script>", *QUICK, "-o", "safe/"]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path.parent == Path("safe") and path.name == "00001-7-é-猫-script.png"
    assert [p.name for p in Path("safe").iterdir()] == [path.name]


@pytest.mark.slow
def test_a_terminal_shows_a_progress_bar(tmp_path):
    import pty

    parent, child = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "diffusekit", "generate", "a red cat", "--steps", "20", "--seed", "1", "-o", "x.png"],
        stdout=subprocess.PIPE,
        stderr=child,
        text=True,
        env=os.environ | {"TERM": "xterm"},
    )
    os.close(child)
    shown = b""
    try:
        while chunk := os.read(parent, 4096):
            shown += chunk
    except OSError:  # the terminal closes with its last user
        pass
    assert done.wait(60) == 0
    assert b"denoising" in shown and b"steps/s" in shown


@pytest.mark.parametrize("rank,count", [(None, 1), ("0", 1), ("1", 0)])
def test_only_the_first_of_several_processes_reports_the_stop(rank, count, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise StopSignal(2)

    monkeypatch.setattr(main.typer.main, "get_command", interrupted)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert main.run(["invert", "my_cat"]) == 130
    assert capsys.readouterr().err.count("error: stopped") == count
