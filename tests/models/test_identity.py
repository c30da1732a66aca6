"""A local model in what is written: its name and its hash, never its path."""

import json
import shutil
from pathlib import Path

import pytest

import diffusekit
from diffusekit import metadata, models
from diffusekit.cli.main import run


@pytest.fixture
def folder(families, tmp_path) -> Path:
    return Path(shutil.copytree(families["sd1"], tmp_path / "private" / "sd-local"))


def draw(folder, path="a.png", **settings) -> metadata.Record:
    image = diffusekit.generate("a cat", model=str(folder), steps=4, seed=1, device="cpu", **settings)[0]
    image.save(path)
    return image.record


def touch(folder: Path) -> None:
    """Change one weight file without changing its size."""
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(data)
    models.load("mini", "cpu")  # so that the changed model is read again


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_an_image_has_name_and_hash_of_a_local_model_and_no_path(folder, ending, tmp_path):
    record = draw(folder, f"a.{ending}")
    read = metadata.read(Path(f"a.{ending}"))
    assert read.record is not None and read.record.settings.model == "sd-local"
    assert len(record.model_hash) == 64 and read.record.model_hash == record.model_hash and not record.revision
    assert read.parameters["Model"] == "sd-local" and read.parameters["Model hash"] == record.model_hash[:10]
    data = Path(f"a.{ending}").read_bytes()
    for encoding in ("utf-8", "utf-16-be"):
        assert str(tmp_path).encode(encoding) not in data


def test_the_hash_is_that_of_the_files(folder, tmp_path):
    """The same files elsewhere have the same hash, one other byte gives another, and so does one other setting."""
    first = models.hash_model(folder, half=False)
    assert first == models.hash_model(folder, half=False) == draw(folder).model_hash
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    assert models.hash_model(other, half=False) == first
    config = other / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("epsilon", "sample"))
    assert models.hash_model(other, half=False) != first
    touch(folder)
    assert models.hash_model(folder, half=False) != first


def test_the_hash_is_computed_once(folder, monkeypatch):
    import hashlib

    first = models.hash_model(folder, half=False)
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert models.hash_model(folder, half=False) == first


@pytest.mark.parametrize("content", ["", "[]", '{"x": 1}', '{"x": {"state": []}}', "\x00", "[" * 100_000])
def test_a_damaged_list_of_hashes_is_ignored(folder, tmp_path, content):
    first = models.hash_model(folder, half=False)
    (file,) = (tmp_path / "cache").rglob("model-hashes.json")
    file.write_text(content)
    assert models.hash_model(folder, half=False) == first


def test_a_model_of_the_hub_and_mini_have_revisions_and_no_hash(mini):
    record = diffusekit.generate("x", model=mini, steps=1)[0].record
    assert record.revision.startswith("diffusekit-") and record.model_hash == ""
    assert "Model hash" not in metadata.format_infotext(record)


def test_a_relative_path_and_a_loaded_model_leave_the_same_name(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert draw(".", "../a.png").settings.model == "sd-local"
    model = models.load(str(folder), "cpu")
    assert diffusekit.generate("x", model=model, steps=1)[0].record.settings.model == "sd-local"


# --- again -----------------------------------------------------------------------------------


def again(*flags: str) -> int:
    return run(["again", "a.png", "--device", "cpu", "-o", "b.png", "--overwrite", "-q", *flags])


def test_again_finds_a_local_model_by_its_hash(folder, capsys):
    draw(folder)
    assert again() == 0 and capsys.readouterr().err == ""
    assert metadata.read(Path("b.png")).record == metadata.read(Path("a.png")).record


def test_again_finds_a_model_that_was_renamed_and_named(folder, tmp_path, capsys):
    draw(folder)
    moved = folder.rename(tmp_path / "renamed")
    assert again() == 8
    err = capsys.readouterr().err
    assert "was made with the local model 'sd-local' (hash " in err and "give its folder or file with --model" in err
    assert again("--model", str(moved)) == 0 and capsys.readouterr().err == ""


def test_again_finds_a_model_by_its_name_in_the_current_folder(folder, tmp_path, monkeypatch, capsys):
    draw(folder)
    shutil.rmtree(tmp_path / "cache")  # as on another machine
    shutil.copy("a.png", folder.parent / "a.png")
    monkeypatch.chdir(folder.parent)
    assert again() == 0 and capsys.readouterr().err == ""


@pytest.mark.parametrize("is_named", [False, True])
def test_again_notices_that_a_local_model_has_changed(folder, capsys, is_named, monkeypatch):
    draw(folder)
    touch(folder)
    if not is_named:
        shutil.copy("a.png", folder.parent / "a.png")
        monkeypatch.chdir(folder.parent)
    assert again(*(["--model", str(folder)] if is_named else [])) == 0
    err = capsys.readouterr().err
    assert err.startswith("warning: the model sd-local has changed: the image was made with the hash ")


def test_again_with_another_model_is_what_was_asked_for(folder, families, capsys):
    draw(folder)
    assert again("--model", str(families["sd2"])) == 0 and capsys.readouterr().err == ""


def test_again_names_another_revision_of_the_hub(families, tmp_path, monkeypatch, capsys):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    root = tmp_path / "hub" / "models--someone--tiny"
    (root / "refs").mkdir(parents=True)
    for commit in ("a" * 40, "b" * 40):
        shutil.copytree(families["sd1"], root / "snapshots" / commit)
        (root / "refs" / "main").write_text(commit)
        if commit[0] == "a":
            draw("someone/tiny")
            models.load("mini", "cpu")
    assert again() == 0
    assert f"revision {'a' * 12} of someone/tiny, and {'b' * 12} is used" in capsys.readouterr().err


# --- everything else that is written ---------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "verb",
    [
        ["denoise", "a cat", "--steps", "2", "--seed", "1", "-o", "out/a.json"],
        ["denoise", "a cat", "--steps", "2", "--seed", "1", "-o", "out/a.png"],
        ["compare", "a cat", "--steps", "2", "--seed", "1", "--steps", "1", "-o", "out/a.json"],
        ["samplers", "--no-path", "--steps", "2", "-o", "out/a.json"],
        ["tokens", "a cat", "-o", "out/a.json"],
        ["attention", "a cat", "--steps", "2", "--seed", "1", "-o", "out/a.json"],
        ["lesson", "a cat", "--steps", "2", "--seed", "1", "-o", "out/a.html"],
    ],
)
def test_visualisations_have_no_path(folder, verb, capsys):
    assert run(["visualise", *verb, "--model", str(folder), "--device", "cpu"]) == 0, capsys.readouterr().err
    (written,) = Path("out").iterdir()
    data = written.read_bytes()
    assert b"sd-local" in data and b"private" not in data


@pytest.mark.slow
def test_a_training_run_has_no_path(folder, tmp_path):
    """Log, checkpoint, report and token name the model without its path, also after it was moved."""
    from PIL import Image

    Path("photos").mkdir()
    for i in range(3):
        Image.new("RGB", (64, 64), (60 * i, 90, 120)).save(f"photos/{i}.png")
    arguments = ["invert", "photos", "--token", "<it>", "--name", "it", "--init", "cat", "--steps", "2", "--batch", "1"]
    arguments[1] = str(Path("photos").resolve())
    assert run([*arguments, "--model", str(folder), "--device", "cpu", "-q"]) == 0
    written = [path for path in Path("embeddings").rglob("*") if path.is_file()]
    assert len(written) > 3
    for path in written:
        assert str(tmp_path).encode() not in path.read_bytes(), path
    token = str(next(path for path in written if path.name == "it.safetensors").resolve())
    assert run(["generate", "a <it>", "--embedding", token, "--model", str(folder), "--steps", "1", "-o", "a.png"]) == 0
    assert str(tmp_path).encode() not in Path("a.png").read_bytes()


def test_the_server_says_no_path(folder):
    from diffusekit.server.models import ServerModels
    from diffusekit.settings import ServeSettings
    from tests.helpers.server import client_of, opened

    assert ServerModels(ServeSettings(model=str(folder))).default_title == "sd-local"
    with opened(model=str(folder)) as jobs, client_of(jobs) as client:
        answer = client.post("/api/jobs", json={"settings": {"prompt": "x", "model": "sd-local"}})
        texts = [answer.text, client.get("/api/jobs").text, client.get("/sdapi/v1/sd-models").text]
        texts += [client.get("/sdapi/v1/options").text, client.get("/v1/models").text]
        jobs.cancel(answer.json()["id"])
        assert answer.json()["settings"]["model"] == "sd-local"
    assert not any("private" in text for text in texts), json.dumps(texts)
