"""Checkpoints in pickles: refused by every verb, imported in the sandbox, and whatever they try runs nothing."""

import collections
import os
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from diffusekit.cli.main import run
from diffusekit.errors import FileRefused
from diffusekit.models import pickled_weights
from tests.helpers import foreign_files

UNET = "model.diffusion_model.input_blocks.0.0.weight"
WEIGHTS = {
    UNET: torch.randn(8, 4, 3, 3),
    "first_stage_model.quant_conv.bias": torch.randn(7).half(),
    "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
    "model.scale": torch.tensor(2.5),
    "model.bf16": torch.randn(3, 5).bfloat16(),
}
EMA = {"model_ema.diffusion_modelinput_blocks00weight": torch.zeros(8, 4, 3, 3)}


def lightning() -> dict:
    """What PyTorch Lightning saves: the class of a callback, numbers of numpy, the state of the optimizer."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)
    callback = type("ModelCheckpoint", (), {"__module__": name})
    module.ModelCheckpoint = callback  # type: ignore[attr-defined]
    parents = {each: types.ModuleType(each) for each in ("pytorch_lightning", "pytorch_lightning.callbacks")}
    sys.modules.update(parents | {name: module})
    return {
        "epoch": 3,
        "global_step": 875000,
        "state_dict": collections.OrderedDict(WEIGHTS | EMA),
        "callbacks": {callback: {"best_model_score": np.float64(0.5), "monitor": None}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(4)}}}],
    }


@pytest.fixture
def forget_lightning():
    yield
    for name in [each for each in sys.modules if each.startswith("pytorch_lightning")]:
        del sys.modules[name]


def write(path: Path, content, **how) -> Path:
    torch.save(content, path, **how)
    return path


@pytest.mark.slow
def test_a_checkpoint_of_lightning_is_imported_with_its_weights(tmp_path, capsys, forget_lightning):
    file = write(tmp_path / "sd.ckpt", lightning())
    assert run(["models", "import", str(file)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "sd.safetensors")
    found = load_file(tmp_path / "sd.safetensors")
    assert found.keys() == WEIGHTS.keys()
    assert all(
        torch.equal(tensor, WEIGHTS[name]) and tensor.dtype == WEIGHTS[name].dtype for name, tensor in found.items()
    )
    before = (tmp_path / "sd.safetensors").read_bytes()
    assert run(["models", "import", str(file), "--keep-ema"]) == 2
    assert "already exists" in capsys.readouterr().err
    assert (tmp_path / "sd.safetensors").read_bytes() == before
    assert run(["models", "import", str(file), "--keep-ema", "--overwrite"]) == 0
    assert load_file(tmp_path / "sd.safetensors").keys() == (WEIGHTS | EMA).keys()


@pytest.mark.slow
def test_old_pickles_and_parts_of_folders_are_imported(tmp_path):
    """Files from before torch 1.6 are no zip; transformers looks for another name than torch."""
    old = write(tmp_path / "old.pt", WEIGHTS, _use_new_zipfile_serialization=False)
    assert run(["models", "import", str(old), "-o", str(tmp_path / "out.safetensors"), "-q"]) == 0
    assert torch.equal(load_file(tmp_path / "out.safetensors")[UNET], WEIGHTS[UNET])
    part = write(tmp_path / "pytorch_model.bin", {f"text_model.{i}": torch.ones(2) for i in range(4)})
    assert run(["models", "import", str(part)]) == 0
    assert len(load_file(tmp_path / "model.safetensors")) == 4


HOSTILE = {
    "system": (lambda: {"state_dict": WEIGHTS, "x": foreign_files.Evil(os.system, "touch canary")}, "asks for"),
    "instead": (lambda: foreign_files.Evil(os.system, "touch canary"), "asks for"),
    "list": (lambda: [torch.ones(2)], "holds no named weights"),
    "empty": (lambda: {"state_dict": {}}, "holds no named weights"),
    "token": (lambda: {"string_to_param": {"*": torch.ones(1, 768)}}, "is a learned token"),
    "large": (lambda: {f"x{i}": torch.zeros(1).expand(2**24) for i in range(8)}, "of tensors|time and memory"),
    "sparse": (lambda: {f"x{i}": torch.eye(3).to_sparse() for i in range(3)}, "cannot be converted|asks for"),
    "complex": (lambda: {f"x{i}": torch.ones(3, dtype=torch.complex64) for i in range(3)}, "cannot be converted"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_checkpoint_is_refused_and_runs_nothing(tmp_path, kind):
    make, says = HOSTILE[kind]
    file = write(tmp_path / "evil.ckpt", make())
    with pytest.raises(FileRefused, match=says) as error:
        pickled_weights.import_checkpoint(file, tmp_path / "out.safetensors")
    assert error.value.exit_code == 3 and error.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["evil.ckpt"]


def test_files_that_torch_did_not_write_never_reach_the_child(tmp_path, monkeypatch):
    monkeypatch.setattr(pickled_weights.subprocess, "Popen", lambda *a, **k: pytest.fail("it reached the child"))
    packed = tmp_path / "packed.ckpt"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}q\x00.")
    damaged = write(tmp_path / "damaged.ckpt", WEIGHTS)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 255
    damaged.write_bytes(data)
    (tmp_path / "text.ckpt").write_text("hello")
    (tmp_path / "safe.ckpt").write_bytes((2).to_bytes(8, "little") + b"{}")
    cases = {
        "packed.ckpt": "has compressed parts",
        "damaged.ckpt": "has a wrong checksum|is a damaged zip|has two names",
        "text.ckpt": "is not a pickle",
        "safe.ckpt": "is a safetensors file, which needs no conversion",
        "missing.ckpt": "is not a file that exists",
        "": "is a folder",
    }
    for name, says in cases.items():
        with pytest.raises(FileRefused, match=says):
            pickled_weights.import_checkpoint(tmp_path / name, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_the_childs_answer_is_an_untrusted_file(tmp_path, monkeypatch):
    file = write(tmp_path / "sd.ckpt", WEIGHTS)
    for code in ("print('rubbish')", "import sys; sys.stdout.buffer.write(b'\\xff' * 99)", "raise SystemExit(9)"):
        monkeypatch.setattr(pickled_weights, "make_command", lambda *a, code=code: [sys.executable, "-c", code])
        with pytest.raises(FileRefused):
            pickled_weights.import_checkpoint(file, tmp_path / "out.safetensors")
        assert [path.name for path in tmp_path.iterdir()] == ["sd.ckpt"]


def test_generate_refuses_a_pickle_with_the_command_that_converts_it(tmp_path, capsys):
    file = write(tmp_path / "dreamy.ckpt", WEIGHTS | {"x": torch.zeros(2**19)})
    assert run(["generate", "a cat", "--model", str(file)]) == 8
    err = capsys.readouterr().err
    assert "is a one-file checkpoint in a pickle, which can run code" in err
    assert "hint: convert it to safetensors: diffusekit models import" in err
