"""Standard streams that are closed, full or not UTF-8: the image is made, and the exit code is the documented one."""

import io
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from diffusekit.cli.main import run
from diffusekit.metadata import save
from tests.helpers import ROOT
from tests.helpers.records import record

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
PROMPT = "猫 é 🐈"
GENERATE = "generate '((cat))' --steps 1 --seed 7 --device cpu -o cat.png"


def shell(arguments: str, redirections: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = f"{shlex.quote(sys.executable)} -m diffusekit {arguments} {redirections}"
    base = {"PATH": "/usr/bin:/bin", "HOME": str(Path.cwd()), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(["bash", "-c", command], capture_output=True, timeout=120, env=base | environment)


@pytest.fixture
def image(tmp_path) -> Path:
    return save(Image.new("RGB", (16, 8)), tmp_path / "image.png", record(prompt=PROMPT))


@pytest.mark.slow
@pytest.mark.parametrize("redirections", ["2>/dev/full", ">&- 2>&- <&-", "2>&-"])
def test_an_image_is_made_whatever_the_streams_are(redirections):
    done = shell(GENERATE, redirections)
    assert done.returncode == 0 and Path("cat.png").is_file()
    assert done.stdout == (b"" if ">&- 2" in redirections else b"cat.png\n") and done.stderr == b""


@pytest.mark.slow
def test_a_full_stdout_is_a_disk_error_and_the_image_is_kept():
    done = shell(GENERATE, ">/dev/full")
    assert done.returncode == 7 and Path("cat.png").is_file()
    assert b"error: cannot write the output: No space left on device\nhint: " in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "redirections,code",
    [(">&-", 0), (">&- 2>&- <&-", 0), ("<&-", 0), (">/dev/full", 7), (">/dev/full 2>/dev/full", 7)],
)
def test_a_verb_that_only_prints(image, redirections, code):
    done = shell(f"info {image.name}", redirections)
    assert done.returncode == code and b"Traceback" not in done.stderr
    assert bool(done.stderr) == (redirections == ">/dev/full")


def test_a_pipe_whose_reader_ends_is_no_error(image):
    for arguments in ("--help", "generate --help", f"info {image.name}"):
        done = shell(arguments, "| true; exit ${PIPESTATUS[0]}")
        assert (done.returncode, done.stderr) == (0, b""), arguments


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_characters_that_an_encoding_lacks_are_escaped(image, encoding):
    plain = shell(f"info {image.name}", "", PYTHONIOENCODING=encoding)
    escaped = {"ascii": r"\u732b \u00e9 \ud83d\udc08", "utf-8": PROMPT}.get(encoding, r"\u732b é \ud83d\udc08")
    assert plain.returncode == 0 and escaped in plain.stdout.decode(encoding)
    as_json = shell(f"info {image.name} --json", "", PYTHONIOENCODING=encoding)
    assert json.loads(as_json.stdout.decode(encoding))["record"]["settings"]["prompt"] == PROMPT


def test_a_locale_without_utf8(image):
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = shell(f"info {image.name}", "", **plain)
    assert done.returncode == 0 and rb"\u732b" in done.stdout


class Stdin(io.TextIOWrapper):
    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data), encoding="ascii")


@pytest.mark.parametrize(
    "data,message",
    [
        (b"", "no prompt was given"),
        (b"a \xff cat\n", "stdin is not UTF-8 text: line 1 has the byte 0xff"),
        ("a cat".encode("utf-16"), "stdin is UTF-16 or UTF-32 text, expected UTF-8"),
    ],
)
def test_prompts_that_are_not_utf8_are_refused(capsys, monkeypatch, data, message):
    monkeypatch.setattr(sys, "stdin", Stdin(data))
    assert run(["generate", "-"]) == 2
    assert f"error: {message}\nhint: " in capsys.readouterr().err


def test_prompts_are_utf8_with_or_without_a_byte_order_mark(capsys, monkeypatch):
    from diffusekit.cli import generate

    read: list[str] = []
    monkeypatch.setattr(generate, "run", lambda settings, prompts, options, *images: read.extend(prompts))
    for mark in ("", "\ufeff"):
        monkeypatch.setattr(sys, "stdin", Stdin(f"{mark}猫\n\n犬\n".encode()))
        Path("prompts.txt").write_text(f"{mark}été\r\n", encoding="utf-8")
        assert run(["generate", "-", "--prompts", "prompts.txt"]) == 0
    assert read == ["猫", "犬", "été"] * 2
    surrogates = "猫".encode().decode("ascii", "surrogateescape")  # an argument where the locale is C
    assert run(["generate", surrogates]) == 0 and read[-1] == "猫"
    assert run(["generate", "a \udcff"]) == 2
    assert "`prompt`" not in capsys.readouterr().out


def test_a_full_disk_elsewhere_is_a_disk_error(capsys, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device", "somewhere/file")

    monkeypatch.setattr("diffusekit.metadata.read", fail)
    assert run(["info", "x.png"]) == 7
    assert "cannot write somewhere/file: No space left on device" in capsys.readouterr().err
