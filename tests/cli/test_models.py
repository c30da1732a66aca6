"""`diffusekit models`: list, info, verify, remove; and the names that the shell completes."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from diffusekit.cli.completion import complete_embedding, complete_lora, complete_model, complete_vae
from diffusekit.cli.main import run
from diffusekit.file_hashes import compute_sha256
from tests.helpers.model_tree import CHECKPOINT, LORA, write_a1111, write_header

COMMIT = "c" * 40


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def cached(cache, families) -> Path:
    """A model in the hub's cache, with blobs under the hashes that the hub has for them."""
    root = cache / "models--someone--tiny"
    for source in families["sd1"].rglob("*"):
        if source.is_file():
            data = source.read_bytes()
            name = hashlib.sha256(data).hexdigest()
            if source.suffix == ".json":  # small files are in git
                name = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            (root / "blobs").mkdir(parents=True, exist_ok=True)
            (root / "blobs" / name).write_bytes(data)
            link = root / "snapshots" / COMMIT / source.relative_to(families["sd1"])
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(root / "blobs" / name)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    return root


def output(capsys, *arguments: str, code: int = 0) -> str:
    assert run(["models", *arguments]) == code
    return capsys.readouterr().out


def test_the_list_has_models_of_every_place_and_other_kinds_when_asked(cached, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DIFFUSEKIT_MODELS", str(write_a1111(tmp_path / "webui")))
    rows = {row["name"]: row for row in json.loads(output(capsys, "list", "--json"))["models"]}
    assert {"mini", "dreamy", "crisp", "someone/tiny"} <= set(rows)
    assert rows["someone/tiny"]["label"] == "Stable Diffusion 1.x" and rows["someone/tiny"]["revision"] == COMMIT
    assert rows["dreamy"]["layout"] == "file" and rows["dreamy"]["place"] == str(tmp_path / "webui")
    for kind, name in (("lora", "style"), ("vae", "sharp"), ("embedding", "bad_hands")):
        assert f"{name} " in output(capsys, "list", "--kind", kind)
    assert run(["models", "list", "--kind", "hat"]) == 2


def test_info_tells_what_a_model_is_without_loading_it(cached, capsys, families):
    out = output(capsys, "info", "someone/tiny")
    assert "Stable Diffusion 1.x" in out and "images from text" in out and "in half precision" in out
    about = json.loads(output(capsys, "info", str(families["sd2"]), "--json"))
    assert (about["family"], about["prediction_type"], about["problem"]) == ("sd2", "v_prediction", "")
    assert set(about["parts"]) == {"text_encoder", "unet", "vae"} and about["memory_full_mb"] > 1


def test_info_of_a_damaged_model_says_what_is_missing_and_ends_with_8(families, capsys):
    shutil.copytree(families["sd1"], "models/broken")
    shutil.rmtree("models/broken/vae")
    assert run(["models", "info", "broken"]) == 8
    captured = capsys.readouterr()
    assert "missing" in captured.out and "has no vae" in captured.err and "hint:" in captured.err


def test_info_of_a_model_that_is_not_here_fetches_nothing(monkeypatch, capsys):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert run(["models", "info", "someone/else"]) == 8
    assert "hint: fetch it: diffusekit models pull someone/else" in capsys.readouterr().err


def test_verify_finds_one_changed_byte_in_the_cache_without_a_network(cached, capsys):
    checked = json.loads(output(capsys, "verify", "someone/tiny", "--json"))
    assert checked["ok"] and all(row["ok"] for row in checked["files"])
    weights = (cached / "snapshots" / COMMIT / "unet" / "diffusion_pytorch_model.safetensors").resolve()
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    out = output(capsys, "verify", "someone/tiny", code=8)
    assert next(line for line in out.splitlines() if line.startswith("DIFFERS")).endswith("model.safetensors")


def test_verify_compares_a_file_with_the_hash_of_its_web_page(capsys):
    path = write_header(Path("models", "style.safetensors"), LORA)
    sha256 = compute_sha256(path)
    assert run(["models", "verify", "style", "--sha256", sha256[:10].upper()]) == 0
    assert capsys.readouterr().out.startswith("ok ")
    assert run(["models", "verify", "style", "--sha256", "0" * 10]) == 8
    captured = capsys.readouterr()
    assert captured.out.startswith("DIFFERS") and "differs from its hash" in captured.err
    assert run(["models", "verify", "style", "--sha256", "xyz"]) == 2


def test_the_embedded_model_is_whole(capsys):
    rows = json.loads(output(capsys, "verify", "mini", "--json"))["files"]
    assert all(row["ok"] for row in rows if row["file"] != "SHA256SUMS" and row["expected"])
    assert sum(bool(row["expected"]) for row in rows) > 5


def test_a_revision_is_removed_from_the_cache_after_a_yes(cached, capsys):
    assert run(["models", "remove", "someone/tiny"]) == 2  # stdin is not a terminal
    assert (cached / "snapshots" / COMMIT).exists()
    assert run(["models", "remove", "someone/tiny", "--yes"]) == 0
    assert "freed" in capsys.readouterr().err and not (cached / "snapshots" / COMMIT).exists()


def test_only_own_files_are_removed(tmp_path, monkeypatch, capsys, families):
    tree = write_a1111(tmp_path / "webui")
    monkeypatch.setenv("DIFFUSEKIT_MODELS", str(tree))
    shutil.copytree(families["sd1"], "models/mine")
    write_header(Path("models", "x.safetensors"), CHECKPOINT)
    outside = Path(shutil.copytree(families["sd1"], "outside"))
    for name, code in (("dreamy", 2), ("mini", 2), (str(outside.absolute()), 8), ("nothing", 8)):
        assert run(["models", "remove", name, "--yes"]) == code, name
    assert (tree / "models" / "Stable-diffusion" / "dreamy.safetensors").exists() and outside.exists()
    assert run(["models", "remove", "mine", "--yes"]) == run(["models", "remove", "x", "--yes"]) == 0
    assert list(Path("models").iterdir()) == []


def test_the_shell_completes_names_and_paths(cached, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSEKIT_MODELS", str(write_a1111(tmp_path / "webui")))
    assert complete_model("s") == ["sd15", "sd21", "sdxl", "sdxl-turbo", "someone/tiny"]
    assert complete_model("D") == ["dreamy"] and complete_lora("") == ["style"]
    assert complete_vae("sh") == ["sharp"] and complete_embedding("bad") == ["bad_hands"]
    Path("pictures").mkdir()
    assert complete_model("./pi") == ["./pictures/"]


def test_flags_complete_in_bash(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("DIFFUSEKIT_MODELS", str(write_a1111(tmp_path / "webui")))
    monkeypatch.setenv("_DIFFUSEKIT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "diffusekit generate --model dre")
    monkeypatch.setenv("COMP_CWORD", "3")
    with pytest.raises(SystemExit):
        run([])
    assert capsys.readouterr().out.split() == ["dreamy"]


def test_doctor_describes_a_model_and_says_why_it_cannot_be_loaded(families, monkeypatch, capsys):
    monkeypatch.setattr("diffusekit.pipeline.generate", lambda *prompts, **settings: None)
    shutil.copytree(families["sd1"], "models/mine")
    assert run(["doctor", "--model", "mine", "--json"]) == 0
    found = {row["what"]: row for row in json.loads(capsys.readouterr().out)["findings"]}
    assert found["model"]["says"].startswith("mine: Stable Diffusion 1.x") and found["task"]["says"]
    shutil.rmtree("models/mine/unet")
    assert run(["doctor", "--model", "mine"]) == 1
    out = capsys.readouterr().out
    assert "BAD  model" in out and "has no unet" in out and "hint: fetch the whole model again" in out
