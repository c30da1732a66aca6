"""What a name stands for: a file in the user's folders, an alias, an id on the hub."""

import hashlib
import logging
import os
import shutil
from pathlib import Path

import pytest

from diffusekit import file_hashes, hub, model_names, models
from diffusekit.errors import ModelError, UsageError
from diffusekit.hub_aliases import ALIASES, WITHDRAWN
from tests.helpers.model_tree import CHECKPOINT, LORA, write_a1111, write_header


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    root = write_a1111(tmp_path / "webui")
    monkeypatch.setenv("DIFFUSEKIT_MODELS", str(root))
    return root / "models" / "Stable-diffusion"


@pytest.mark.parametrize(
    "name",
    ["crisp", "crisp.safetensors", "SDXL/crisp.safetensors", "SDXL/crisp", "SDXL\\crisp.safetensors", "Crisp"],
)
def test_a_file_is_found_by_each_of_its_names(tree, name):
    assert model_names.resolve(name) == str(tree / "SDXL" / "crisp.safetensors")


def test_an_a1111_title_is_found_and_its_hash_is_compared(tree):
    sha = hashlib.sha256((tree / "dreamy.safetensors").read_bytes()).hexdigest()
    for title in (f"dreamy.safetensors [{sha[:10]}]", f"dreamy [{sha[:10].upper()}]", f"dreamy.safetensors [{sha}]"):
        assert model_names.resolve(title) == str(tree / "dreamy.safetensors")
    assert model_names.resolve(sha[:10]) == str(tree / "dreamy.safetensors")  # it is known by now
    with pytest.raises(ModelError, match=f"which is {sha[:10]}") as error:
        model_names.resolve("dreamy.safetensors [0123456789]")
    assert "leave out the hash" in error.value.hint


def test_the_hash_of_an_old_title_is_that_of_a_part(tree):
    path = write_header(tree / "large.safetensors", {"x": ("F32", [300_000])}, b"\7")
    assert file_hashes.old_hash(path) == hashlib.sha256(b"\7" * 0x10000).hexdigest()[:8]
    assert model_names.resolve(f"large [{file_hashes.old_hash(path)}]") == str(path)


def test_an_ambiguous_name_is_refused_with_the_candidates_unless_the_hash_decides(tree):
    first, second = tree / "dreamy.safetensors", write_header(tree / "old" / "dreamy.safetensors", CHECKPOINT, b"\2")
    with pytest.raises(UsageError) as error:
        model_names.resolve("dreamy")
    assert str(first) in error.value.message and str(second) in error.value.message
    sha = file_hashes.sha256_of(second)
    assert model_names.resolve(f"dreamy [{sha[:10]}]") == str(second)
    assert model_names.resolve("old/dreamy") == str(second)
    shown = model_names.short_names("model")  # the name of the first is a part of the path of the second
    assert set(shown) == {"crisp", str(first), "old/dreamy.safetensors"}
    assert all(model_names.resolve(name) == str(file.path) for name, file in shown.items())


def test_of_a_pickle_and_a_safe_file_the_safe_one_is_meant(tree):
    (tree / "dreamy.ckpt").write_bytes(b"\x80")
    assert model_names.resolve("dreamy") == str(tree / "dreamy.safetensors")
    assert model_names.resolve("dreamy.ckpt") == str(tree / "dreamy.ckpt")


def test_an_alias_is_a_pinned_commit_and_a_file_of_its_name_makes_it_ambiguous(tree):
    assert model_names.resolve("SD15") == ALIASES["sd15"].id
    assert set(ALIASES) == {"sd15", "sd21", "sdxl", "sdxl-turbo", "lcm"}
    assert all(len(alias.commit) == 40 and alias.repo.count("/") == 1 for alias in ALIASES.values())
    write_header(tree / "sdxl.safetensors", CHECKPOINT)
    with pytest.raises(UsageError, match=r"is the file .* and an alias of stabilityai/"):
        model_names.resolve("sdxl")
    assert model_names.resolve("sdxl.safetensors") == str(tree / "sdxl.safetensors")


def test_a_withdrawn_repository_leads_to_its_successor_with_a_sentence(caplog, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for old, new in WITHDRAWN.items():
        with caplog.at_level(logging.WARNING):
            assert model_names.resolve(f"{old}@abc") == f"{new}@abc"
        assert f"{old} was withdrawn from the hub; {new} has the same files" in caplog.text
    old = next(iter(WITHDRAWN))
    (tmp_path / "hub" / f"models--{old.replace('/', '--')}" / "snapshots" / ("a" * 40)).mkdir(parents=True)
    assert model_names.resolve(f"{old}@{'a' * 40}") == f"{old}@{'a' * 40}"  # it is still here


def test_a_folder_of_the_workspace_is_loaded_by_its_name(families):
    shutil.copytree(families["sd1"], "models/anime")
    place = models.locate("anime")
    assert (place.name, place.folder, place.revision) == ("anime", Path("models/anime").resolve(), "")
    assert "anime" in models.installed()
    Path("anime").mkdir()  # a folder of another purpose does not hide the model
    assert models.locate("anime").folder == place.folder


def test_a_name_that_nothing_has_is_refused_with_near_ones_and_absent_folders(tree, monkeypatch):
    with pytest.raises(ModelError, match="there is no model 'dreamyy'") as error:
        hub.locate("dreamyy")
    assert error.value.hint.startswith("did you mean dreamy?")
    monkeypatch.setenv("DIFFUSEKIT_MODELS", os.pathsep.join(("/no/such/folder", str(tree))))
    with pytest.raises(ModelError, match="/no/such/folder does not exist"):
        hub.locate("dreamyy")
    with pytest.raises(ModelError, match="there is no LoRA 'stile'"):
        model_names.locate_file("lora", "stile")


def test_lora_vae_and_embeddings_are_located_by_name_or_path(tree):
    webui = tree.parents[1]
    assert model_names.locate_file("lora", "style") == webui / "models" / "Lora" / "style.safetensors"
    assert model_names.locate_file("vae", "sharp.safetensors") == webui / "models" / "VAE" / "sharp.safetensors"
    assert model_names.locate_file("vae", "dreamy") == tree / "dreamy.vae.safetensors"
    assert model_names.locate_file("embedding", "bad_hands") == webui / "embeddings" / "bad_hands.safetensors"
    assert model_names.locate_file("lora", str(write_header(Path("x.safetensors"), LORA))) == Path("x.safetensors")


def test_a_hash_is_computed_again_when_the_file_changes(monkeypatch):
    path = write_header(Path("a.safetensors"), LORA)
    first = file_hashes.sha256_of(path)
    monkeypatch.setattr(file_hashes, "compute_sha256", lambda path: pytest.fail("it is known"))
    assert file_hashes.sha256_of(path) == file_hashes.known_sha256(path) == first
    path.write_bytes(path.read_bytes() + b"x")
    assert file_hashes.known_sha256(path) == ""
