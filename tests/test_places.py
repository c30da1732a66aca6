"""Where model files are found: ./models, the folders that the user names, and the trees of other programs."""

from pathlib import Path

import pytest

from diffusekit import config, places
from diffusekit.errors import UsageError
from tests.helpers.model_tree import CHECKPOINT, EMBEDDING, LORA, VAE, write_a1111, write_header


def names(kind: places.Kind) -> list[str]:
    return [file.name for file in places.list_files(kind)]


def test_without_any_folder_there_is_nothing():
    assert all(names(kind) == [] for kind in places.KINDS)


def test_an_a1111_tree_is_read_by_its_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSEKIT_MODELS", str(write_a1111(tmp_path / "webui")))
    assert sorted(names("model")) == ["SDXL/crisp.safetensors", "dreamy.safetensors"]
    assert names("lora") == ["style.safetensors"] and names("embedding") == ["bad_hands.safetensors"]
    assert sorted(names("vae")) == ["dreamy.vae.safetensors", "sharp.safetensors"]
    monkeypatch.setenv("DIFFUSEKIT_MODELS", str(tmp_path / "webui" / "models"))
    assert len(names("model")) == 2 and names("lora") == ["style.safetensors"]


def test_a_comfyui_tree_and_its_extra_paths_are_read(tmp_path, monkeypatch):
    root = tmp_path / "ComfyUI"
    write_header(root / "models" / "checkpoints" / "own.safetensors", CHECKPOINT)
    write_header(root / "models" / "loras" / "own_lora.safetensors", LORA)
    write_a1111(tmp_path / "webui")
    (root / "extra_model_paths.yaml").write_text(
        "a111:\n  base_path: ../webui/\n  checkpoints: models/Stable-diffusion\n"
        "  loras: |\n    models/Lora\n    models/LyCORIS\n  embeddings: embeddings\n  upscale_models: models/ESRGAN\n"
    )
    monkeypatch.setenv("DIFFUSEKIT_MODELS", str(root))
    assert sorted(names("model")) == ["SDXL/crisp.safetensors", "dreamy.safetensors", "own.safetensors"]
    assert sorted(names("lora")) == ["own_lora.safetensors", "style.safetensors"]
    assert names("embedding") == ["bad_hands.safetensors"]


@pytest.mark.parametrize("text", ["", "[1]", "a: b", "a: {checkpoints: 3}", "a: [\n", "\0", "a: &a [*a]", "[" * 5000])
def test_a_strange_list_of_extra_paths_has_no_effect(tmp_path, monkeypatch, text):
    write_header(tmp_path / "models" / "checkpoints" / "own.safetensors", CHECKPOINT)
    (tmp_path / "extra_model_paths.yaml").write_text(text)
    monkeypatch.setenv("DIFFUSEKIT_MODELS", str(tmp_path))
    assert names("model") == ["own.safetensors"]


def test_files_in_a_folder_of_mixed_content_are_told_apart_by_their_headers():
    for name, tensors in {"a": CHECKPOINT, "b": LORA, "c": VAE, "d": EMBEDDING}.items():
        write_header(Path("models", "downloads", f"{name}.safetensors"), tensors)
    write_header(Path("models", "lora", "e.safetensors"), LORA)
    Path("models", "folder").mkdir()
    Path("models", "folder", "model_index.json").write_text("{}")
    found = {kind: sorted(names(kind)) for kind in places.KINDS}
    assert found["model"] == ["downloads/a.safetensors", "folder"]
    assert found["lora"] == ["downloads/b.safetensors", "e.safetensors"]
    assert found["vae"] == ["downloads/c.safetensors"] and found["embedding"] == ["downloads/d.safetensors"]


def test_one_file_in_two_places_is_listed_once(tmp_path, monkeypatch):
    tree = write_a1111(tmp_path / "webui")
    Path("models").symlink_to(tree / "models")
    monkeypatch.setenv("DIFFUSEKIT_MODELS", f"{tree}{':'}{tree / 'models'}")
    assert len(names("model")) == 2 and len(names("lora")) == 1


def test_a_loop_of_links_ends():
    write_header(Path("models", "deep", "a.safetensors"), CHECKPOINT)
    Path("models", "deep", "again").symlink_to(Path("models").absolute())
    assert names("model") == ["deep/a.safetensors"]


def test_the_configuration_file_names_folders(tmp_path):
    write_header(tmp_path / "big" / "a.safetensors", CHECKPOINT)
    Path("diffusekit.toml").write_text(f'[models]\nfolders = ["{tmp_path / "big"}"]\n')
    assert names("model") == ["a.safetensors"]
    for wrong in ("folders = 3", 'folder = ["x"]', "folders = [1]"):
        Path("diffusekit.toml").write_text(f"[models]\n{wrong}\n")
        with pytest.raises(UsageError, match=r"\[models\] should have only") as error:
            config.model_folders()
        assert "folders = [" in error.value.hint
