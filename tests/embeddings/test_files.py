"""Token files are saved completely or not at all, and read back."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open

from diffusekit import embeddings
from diffusekit.embeddings import LearnedToken
from diffusekit.errors import DiskError, FileRefused, UsageError
from tests.helpers.foreign_files import token


@pytest.mark.parametrize("width", [(256,), (768, 1280)])
def test_save_and_read(tmp_path, width):
    facts = {"base_model": "mini", "init": "cat", "scores": json.dumps({"dino": 0.5}), "note": "é*"}
    given = token(3, width, **facts)
    path = embeddings.save(given, tmp_path / "deep" / "my_cat.safetensors")
    found = embeddings.read(path)
    assert (found.name, found.token, found.metadata, found.path) == ("my_cat", "S*", facts, path)
    assert all(torch.equal(a, b) for a, b in zip(found.vectors, given.vectors, strict=True))
    assert [p.name for p in path.parent.iterdir()] == ["my_cat.safetensors"]
    with safe_open(path, "pt") as file:
        assert list(file.keys()) == (["S*"] if len(width) == 1 else ["clip_g", "clip_l"])
        told = file.metadata()
    assert (told["token"], told["vectors"]) == ("S*", "3")
    assert told["width"] == ("256" if len(width) == 1 else "768+1280")


@pytest.mark.slow
def test_equal_tokens_give_equal_bytes_in_every_process(tmp_path):
    code = (
        "import torch; from diffusekit import embeddings as e;"
        "facts = {k: k * 2 for k in ('seed', 'init', 'steps', 'base_model', 'scores')};"
        "e.save(e.LearnedToken('x', 'S*', (torch.arange(12.).reshape(3, 4),), facts), 'x.safetensors')"
    )
    facts = {k: k * 2 for k in ("scores", "base_model", "steps", "init", "seed")}
    same = LearnedToken("x", "S*", (torch.arange(12.0).reshape(3, 4),), facts)
    here = embeddings.save(same, tmp_path / "here.safetensors").read_bytes()
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.safetensors").read_bytes() == here


def test_an_existing_file_is_kept(tmp_path):
    path = embeddings.save(token(), tmp_path / "a.safetensors")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        embeddings.save(token(5), path)
    assert path.read_bytes() == before
    assert embeddings.read(embeddings.save(token(5), path, overwrite=True)).count == 5


def test_invalid_tokens_and_names_are_not_written(tmp_path):
    broken = LearnedToken("x", "S*", (torch.full((1, 256), float("nan")),))
    with pytest.raises(FileRefused, match="256 values that are NaN"):
        embeddings.save(broken, tmp_path / "x.safetensors")
    for name, says in (("x.pt", "does not end in"), ("CON.safetensors", "reserved")):
        with pytest.raises(UsageError, match=says):
            embeddings.save(token(), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("existed", [True, False])
def test_a_full_disk_changes_nothing(tmp_path, monkeypatch, call, existed):
    import errno
    import os
    from pathlib import Path

    path = tmp_path / "a.safetensors"
    before = embeddings.save(token(), path).read_bytes() if existed else b""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), full)
        with pytest.raises(DiskError, match="No space left") as caught:
            embeddings.save(token(5), path, overwrite=True)
        assert caught.value.exit_code == 7
        with pytest.raises(DiskError):
            embeddings.export_token(token(5, (768, 1280)), tmp_path / "out", "diffusers")
    assert (path.read_bytes() if existed else b"") == before
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == ([path] if existed else [])
