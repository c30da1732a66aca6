"""Importing pickles: the good ones come in unchanged, the evil ones run nothing, whatever they try."""

import io
import os
import subprocess
import sys

import pytest
import torch

from diffusekit import embeddings
from diffusekit.cli.main import run
from diffusekit.embeddings import LearnedToken
from diffusekit.embeddings.formats import layouts, pickle_sandbox
from diffusekit.errors import FileRefused
from tests.helpers import foreign_files
from tests.helpers.foreign_files import rows


def saved(found, **how) -> bytes:
    file = io.BytesIO()
    torch.save(found, file, **how)
    return file.getvalue()


def paper() -> dict:
    """The original paper's file: no name, a ParameterDict, token ids as tensors."""
    parameters = torch.nn.ParameterDict({"*": torch.nn.Parameter(rows())})
    return {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": parameters}


def a1111() -> dict:
    return {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": torch.nn.Parameter(rows())},
        "name": "bad-hands",
        "step": 7,
        "sd_checkpoint": None,
        "sd_checkpoint_name": None,
    }


GOOD = {
    "a1111.pt": (a1111, "bad-hands", (768,)),
    "paper.pt": (paper, "paper", (768,)),
    "learned_embeds.bin": (lambda: {"<toy>": rows()}, "<toy>", (768,)),
    "kohya.pt": (lambda: {"emb_params": rows()}, "kohya", (768,)),
    "comfy.pt": (lambda: [{"a": rows()[:1]}, {"b": rows()[1:]}], "comfy", (768,)),
    "sdxl.pt": (lambda: {"clip_l": rows(), "clip_g": rows(2, 1280)}, "sdxl", (768, 1280)),
    "cog.pti": (lambda: {"text_encoders_0": rows(), "text_encoders_1": rows(2, 1280)}, "cog", (768, 1280)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GOOD)
def test_harmless_pickles_are_read_unchanged(tmp_path, name):
    make, word, width = GOOD[name]
    path = tmp_path / name
    old = {"_use_new_zipfile_serialization": False}
    for how in ({}, old) if name != "paper.pt" else ({},):
        path.write_bytes(before := saved(make(), **how))
        found = embeddings.import_token(path)
        assert (found.token, found.width) == (word, width)
        assert torch.equal(found.vectors[0], rows())
        assert path.read_bytes() == before


def test_a_parameter_dict_of_an_old_torch():
    """Before torch 1.12 it had no list of its keys."""
    found = paper()
    del found["string_to_param"].__dict__["_keys"]
    tensors, metadata = layouts.flatten(pickle_sandbox.load_pickle(saved(found)))
    assert metadata == {} and torch.equal(tensors["emb_params"], rows())


@pytest.mark.slow
def test_our_own_export_is_read_back(tmp_path):
    given = LearnedToken("my_cat", "S*", (rows(),), {"init": "cat", "steps": "500"})
    (path,) = embeddings.export_token(given, tmp_path / "my_cat.pt", "a1111")
    found = embeddings.import_token(path)
    assert (found.name, found.token, found.metadata) == ("my_cat", "S*", given.metadata)
    assert torch.equal(found.vectors[0], given.vectors[0])


def test_files_that_are_not_pickles_are_imported_too(tmp_path):
    path = foreign_files.tensors(tmp_path / "x.safetensors", {"my cat": rows()})
    with pytest.raises(FileRefused, match="white space"):
        embeddings.import_token(path)
    assert embeddings.import_token(path, "S*").token == "S*"
    path.rename(tmp_path / "x.bin")  # the bytes decide, not the name
    assert embeddings.import_token(tmp_path / "x.bin", "S*").token == "S*"
    png = foreign_files.png_with_text(tmp_path / "p.png", foreign_files.a1111_json(rows()))
    assert embeddings.import_token(png).token == "bad-hands"


def test_hostile_pickles_are_refused_without_running(tmp_path):
    """In this process, which has nothing to protect it but `weights_only`."""
    canary, tried = tmp_path / "canary", 0
    for payload in foreign_files.payloads(canary).values():
        for data in foreign_files.evil_bytes(payload).values():
            with pytest.raises(FileRefused):
                pickle_sandbox.convert(data)
            tried += 1
    assert tried >= 100
    assert sorted(p.name for p in tmp_path.iterdir()) == ["payload.py"]


def test_the_message_names_what_the_pickle_asks_for():
    with pytest.raises(FileRefused, match=r"asks for '\w+\.system' when it is opened"):
        pickle_sandbox.convert(saved(foreign_files.Evil(os.system, "true")))


PAYLOADS = [
    "os.system",
    "subprocess",
    "eval",
    "open",
    "runpy",
    "logging",
    "ctypes",
    "webbrowser",
    "shutil",
    "torch.load",
    "nested",
    "in place of a tensor",
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", PAYLOADS)
def test_every_kind_of_hostile_pickle_is_refused(tmp_path, kind, capsys):
    canary = tmp_path / "canary"
    payload = foreign_files.payloads(canary)[kind]
    suffix = [".pt", ".bin", ".ckpt", ".safetensors", ".pth", ".pkl", ""][len(kind) % 7]
    path = tmp_path / f"evil{suffix}"
    path.write_bytes(saved(payload))
    with pytest.raises(FileRefused):
        embeddings.import_token(path)
    assert run(["embeddings", "import", str(path)]) == 3
    err = capsys.readouterr().err
    assert err.startswith("error: ") and "hint: " in err and "Traceback" not in err
    assert not canary.exists() and not (tmp_path / "embeddings").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", foreign_files.bad_zips())
def test_zips_that_torch_did_not_write_never_reach_the_child(tmp_path, monkeypatch, kind):
    path = tmp_path / "x.pt"
    path.write_bytes(foreign_files.bad_zips()[kind])
    monkeypatch.setattr(pickle_sandbox, "open_in_child", lambda data: pytest.fail("it reached the child"))
    with pytest.raises(FileRefused) as caught:
        embeddings.import_token(path)
    assert str(path) in caught.value.message


def test_a_zip_that_torch_wrote_reaches_the_child(tmp_path, monkeypatch):
    path = tmp_path / "x.pt"
    path.write_bytes(foreign_files.good_zip())
    monkeypatch.setattr(pickle_sandbox, "open_in_child", lambda data: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        embeddings.import_token(path)


def test_an_old_torch_is_refused():
    for version in ("2.9.1", "2.5.0+cu121", "1.13"):
        with pytest.raises(FileRefused, match=r"needs torch 2\.10"):
            pickle_sandbox.check_torch_version(version)
    for version in ("2.10.0", "2.13.0+cpu", "3.0"):
        pickle_sandbox.check_torch_version(version)


def in_a_guarded_child(code: str) -> subprocess.CompletedProcess[str]:
    start = (
        "import os, sys, torch; from diffusekit.embeddings.formats.pickle_sandbox import drop_rights; drop_rights();"
    )
    return subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, timeout=60)


@pytest.mark.slow
def test_the_child_has_no_rights_even_if_code_runs(tmp_path):
    for code in (
        "os.system('touch canary')",
        "open('canary', 'w')",
        "os.open('canary', os.O_CREAT | os.O_WRONLY)",
        "import subprocess; subprocess.run(['touch', 'canary'])",
        "import socket; socket.socket()",
        "os.execv('/usr/bin/touch', ['touch', 'canary'])",
        "os.mkdir('canary')",
        "os.rename(sys.executable, 'canary')",
    ):
        done = in_a_guarded_child(code)
        assert done.returncode == 1 and "PermissionError" in done.stderr, (code, done.stderr)
        assert not list(tmp_path.iterdir()), code
    done = in_a_guarded_child("bytearray(3 * 2**30)")
    assert done.returncode == 1 and "MemoryError" in done.stderr


def test_the_child_sees_no_secrets_and_not_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("open('canary', 'w')")
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "torch.py"))
    seen = {}

    def spy(command, **how):
        seen.update(how["env"], cwd=how["cwd"])
        raise subprocess.TimeoutExpired(command, how["timeout"])

    monkeypatch.setattr(subprocess, "run", spy)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "x.pt"
    path.write_bytes(foreign_files.good_zip())
    with pytest.raises(FileRefused, match="takes more than 60 seconds"):
        embeddings.import_token(path)
    assert not {"HF_TOKEN", "PYTHONSTARTUP"} & set(seen) and seen["cwd"] != str(tmp_path)
    assert str(tmp_path) not in seen["PYTHONPATH"].split(os.pathsep)


def test_the_childs_answer_is_checked_again(tmp_path, monkeypatch):
    path = tmp_path / "x.pt"
    path.write_bytes(foreign_files.good_zip())
    for answer in (b"", b"rubbish" * 9, foreign_files.raw({"a": 1})):
        monkeypatch.setattr(pickle_sandbox, "open_in_child", lambda data, answer=answer: answer)
        with pytest.raises(FileRefused):
            embeddings.import_token(path)
