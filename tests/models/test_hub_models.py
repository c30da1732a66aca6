"""Models of the hub: what is fetched and in which order, and what is said about those in the cache."""

import fnmatch
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file, save_file

from diffusekit import hub, models
from diffusekit.cli.main import run
from diffusekit.errors import DiskError, ModelError
from tests.helpers.safety import NONE, add_checker

COMMIT, OLD = "a" * 40, "b" * 40
UNET = "unet/diffusion_pytorch_model"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def repo(families, tmp_path) -> Path:
    return Path(shutil.copytree(families["sd1"], tmp_path / "repo"))


@pytest.fixture
def fetched(repo, cache, monkeypatch) -> list[str]:
    """A hub that serves the folder `repo` as someone/tiny: lists the files that were fetched, in order."""
    import huggingface_hub
    from huggingface_hub import constants

    fetched: list[str] = []

    def model_info(self, name, *, revision, files_metadata=False):
        files = sorted(path for path in repo.rglob("*") if path.is_file())
        rows = [SimpleNamespace(rfilename=f.relative_to(repo).as_posix(), size=f.stat().st_size) for f in files]
        return SimpleNamespace(siblings=rows, sha=COMMIT)

    def snapshot_download(name, *, revision, allow_patterns):
        folder = cache / "models--someone--tiny" / "snapshots" / COMMIT
        for file in sorted(path.relative_to(repo).as_posix() for path in repo.rglob("*") if path.is_file()):
            if any(fnmatch.fnmatch(file, pattern) for pattern in allow_patterns) and not (folder / file).exists():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(repo / file, folder / file)
                fetched.append(file)
        refs = cache / "models--someone--tiny" / "refs"
        refs.mkdir(exist_ok=True)
        (refs / "main").write_text(COMMIT)
        return str(folder)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return fetched


def refused(name="someone/tiny") -> ModelError:
    with pytest.raises(ModelError) as error:
        models.locate(name)
    assert error.value.exit_code == 8 and error.value.hint and "\n" not in error.value.message
    return error.value


def halve(folder: Path, *, keep: bool) -> None:
    """Add weights in half precision; without `keep` they replace the full ones."""
    for file in list(folder.rglob("*.safetensors")):
        half = {name: tensor.half() for name, tensor in load_file(file).items()}
        save_file(half, file.with_name(f"{file.stem}.fp16.safetensors"))
        if not keep:
            file.unlink()


def shard(file: Path, spelling: str) -> None:
    tensors = load_file(file)
    for number in range(2):
        save_file(dict(list(tensors.items())[number::2]), file.with_name(spelling.format(number + 1)))
    file.unlink()


# --- fetching --------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["StableDiffusion3Pipeline", "FluxPipeline", "StableDiffusionXLImg2ImgPipeline"])
def test_the_class_is_checked_before_anything_else_is_fetched(repo, fetched, label):
    index = json.loads((repo / "model_index.json").read_text()) | {"_class_name": label}
    (repo / "model_index.json").write_text(json.dumps(index))
    assert label in refused().message and fetched == ["model_index.json"]
    assert label in refused().message and fetched == ["model_index.json"]  # now it is in the cache


def test_configurations_are_checked_before_weights_are_fetched(repo, fetched):
    config = json.loads((repo / "unet" / "config.json").read_text()) | {"in_channels": 8}
    (repo / "unet" / "config.json").write_text(json.dumps(config))
    assert "InstructPix2Pix" in refused().message
    assert fetched and not any(file.endswith(".safetensors") for file in fetched)


def test_full_precision_is_fetched_for_full_precision(repo, fetched):
    halve(repo, keep=True)
    models.locate("someone/tiny")
    assert f"{UNET}.safetensors" in fetched and not any("fp16" in file for file in fetched)


def test_half_precision_is_fetched_for_half_precision(repo, fetched):
    halve(repo, keep=True)
    models.load("mini", "cpu")  # so that the next one is not in memory
    assert models.load("someone/tiny", "cpu", "bfloat16").revision == COMMIT
    weights = [file for file in fetched if file.endswith(".safetensors")]
    assert len(weights) == 3 and all(".fp16." in file for file in weights)


def test_half_precision_is_fetched_when_there_is_nothing_else(repo, fetched):
    halve(repo, keep=False)
    models.load("mini", "cpu")
    assert models.load("someone/tiny", "cpu").unet.conv_in.weight.dtype.itemsize == 4
    assert f"{UNET}.fp16.safetensors" in fetched


@pytest.mark.parametrize("half", [False, True])
def test_one_of_both_kinds_of_shards_is_fetched(repo, fetched, half):
    halve(repo, keep=True)
    shard(repo / f"{UNET}.safetensors", "diffusion_pytorch_model-{:05}-of-00002.safetensors")
    shard(repo / f"{UNET}.fp16.safetensors", "diffusion_pytorch_model.fp16-{:05}-of-00002.safetensors")
    models.locate("someone/tiny", half=lambda: half)
    weights = [file for file in fetched if file.startswith(UNET)]
    assert len(weights) == 2 and all((".fp16-" in file) == half for file in weights)


@pytest.mark.slow
def test_the_safety_checker_is_fetched_and_its_absence_is_mended(repo, fetched, cache):
    add_checker(repo, threshold=NONE)
    (repo / "safety_checker" / "pytorch_model.bin").write_bytes(b"x" * 100)
    folder = models.locate("someone/tiny").folder
    checker = {file for file in fetched if file.startswith(("safety_checker/", "feature_extractor/"))}
    assert checker == {
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "feature_extractor/preprocessor_config.json",
    }
    shutil.rmtree(folder / "safety_checker")  # as versions before 0.7 left it
    fetched.clear()
    models.locate("someone/tiny")
    assert "safety_checker/model.safetensors" in fetched and "unet/config.json" not in fetched


@pytest.mark.slow
def test_a_model_without_its_checker_is_used_when_nothing_can_be_fetched(repo, fetched, cache, monkeypatch):
    import huggingface_hub

    add_checker(repo, threshold=NONE)
    folder = models.locate("someone/tiny").folder
    shutil.rmtree(folder / "safety_checker")

    def fail(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    assert models.locate("someone/tiny").folder == folder


def test_all_parts_of_sdxl_are_fetched(random_models, cache, fetched, repo):
    shutil.rmtree(repo)
    shutil.copytree(random_models["sdxl"], repo)
    halve(repo, keep=True)
    folder = models.locate("someone/tiny", half=lambda: True).folder
    assert models.load("someone/tiny", "cpu").family.name == "sdxl"
    assert {file.split("/")[0] for file in fetched if ".fp16." in file} == {
        "text_encoder",
        "text_encoder_2",
        "unet",
        "vae",
    }
    assert (folder / "tokenizer_2" / "tokenizer_config.json").exists()


def test_pickles_code_and_weights_without_ema_are_not_fetched(repo, fetched):
    for name in ("unet/diffusion_pytorch_model.bin", "unet/pipeline.py", f"{UNET}.non_ema.safetensors", "v1.ckpt"):
        (repo / name).write_bytes(b"x" * 100)
    models.locate("someone/tiny")
    assert not any(file.endswith((".bin", ".py", ".ckpt")) or "non_ema" in file for file in fetched)


def test_a_repository_of_pickles_is_refused_before_a_download(repo, fetched):
    (repo / f"{UNET}.safetensors").rename(repo / f"{UNET}.bin")
    message = refused().message
    assert "someone/tiny/unet holds no .safetensors weights, only diffusion_pytorch_model.bin" in message
    assert fetched == ["model_index.json"]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["dreamy_v8.safetensors"], "it holds dreamy_v8.safetensors, 100 bytes, and files are not fetched one by one"),
        (["pytorch_lora_weights.safetensors"], "it holds a LoRA (pytorch_lora_weights.safetensors)"),
        (["config.json", "model.safetensors"], "it holds one network (model.safetensors)"),
        (["flux-q4.gguf"], "it holds flux-q4.gguf"),
        (["data.csv"], "it has no model_index.json, but data.csv"),
    ],
)
def test_a_repository_that_is_not_a_model_is_named_before_a_download(repo, fetched, files, says):
    shutil.rmtree(repo)
    repo.mkdir()
    for name in files:
        (repo / name).write_bytes(b"x" * 100)
    assert says in refused().message and fetched == []


def test_a_full_disk_is_noticed_before_the_weights_are_fetched(repo, fetched, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    with pytest.raises(DiskError, match=r"needs 6.8 MB more, .* has 1.0 MB free") as error:
        models.locate("someone/tiny")
    assert error.value.exit_code == 7 and not any(file.endswith(".safetensors") for file in fetched)


def test_an_interrupted_download_is_continued(repo, fetched, cache):
    models.locate("someone/tiny")
    shutil.rmtree(cache / "models--someone--tiny" / "snapshots" / COMMIT / "vae")
    fetched.clear()
    assert models.locate("someone/tiny").revision == COMMIT
    assert sorted(fetched) == ["vae/config.json", "vae/diffusion_pytorch_model.safetensors"]


# --- the cache -------------------------------------------------------------------------------


def cached(cache: Path, source: Path, commit: str = COMMIT, *, ref: str = "main", name: str = "tiny") -> Path:
    """Put a folder into the cache as a revision of someone/`name`."""
    root = cache / f"models--someone--{name}"
    folder = Path(shutil.copytree(source, root / "snapshots" / commit))
    (root / "refs").mkdir(exist_ok=True)
    if ref:
        (root / "refs" / ref).write_text(commit)
    return folder


def listed(capsys) -> dict[str, dict]:
    assert run(["models", "list", "--json"]) == 0
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}


def test_only_what_can_be_loaded_is_said_to_be_available(cache, repo):
    cached(cache, repo)
    half_fetched = cached(cache, repo, name="half")
    (half_fetched / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    pickles = cached(cache, repo, name="bin")
    (pickles / f"{UNET}.safetensors").rename(pickles / f"{UNET}.bin")
    xl = cached(cache, repo, name="xl")
    (xl / "model_index.json").write_text('{"_class_name": "StableDiffusion3Pipeline"}')
    assert list(models.installed()) == ["mini", "someone/tiny"]
    for name, says in (("half", "vae holds no .safetensors"), ("bin", "unet holds no .safetensors")):
        error = refused(f"someone/{name}")
        assert "is not whole in the cache" in error.message and says in error.message
        assert error.hint == "available without a network: mini, someone/tiny"
    assert "Stable Diffusion 3" in refused("someone/xl").message


def test_models_list_shows_class_precision_revision_and_what_is_missing(cache, repo, capsys):
    index = json.loads((repo / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (repo / "model_index.json").write_text(json.dumps(index))
    cached(cache, repo)
    halve(repo, keep=True)
    cached(cache, repo, name="both")
    half_fetched = cached(cache, repo, name="half")
    (half_fetched / "vae" / "config.json").unlink()
    rows = listed(capsys)
    tiny = rows["someone/tiny"]
    assert (tiny["class"], tiny["revision"], tiny["refs"]) == ("StableDiffusionPipeline", COMMIT, ["main"])
    assert (tiny["precision"], tiny["problem"], tiny["safety_checker"]) == ("full", "", True)
    assert rows["someone/both"]["precision"] == "full and half"
    assert rows["someone/half"]["problem"] == "vae/config.json does not exist"
    assert rows["mini"]["embedded"] and rows["mini"]["precision"] == "full"
    assert run(["models", "list"]) == 0
    out = capsys.readouterr().out
    assert "cannot be loaded: vae/config.json does not exist" in out and "with a safety checker" in out


def test_of_two_revisions_main_is_used_and_both_are_shown(cache, repo, capsys):
    cached(cache, repo, OLD, ref="")
    cached(cache, repo)
    assert models.locate("someone/tiny").revision == COMMIT
    assert list(models.installed()) == ["mini", "someone/tiny", f"someone/tiny@{OLD[:12]}"]
    for name in models.installed():
        assert models.locate(name).folder == models.installed()[name]  # every name that is shown can be used
    rows = listed(capsys)
    assert rows["someone/tiny"]["revision"] == COMMIT and rows[f"someone/tiny@{OLD[:12]}"]["revision"] == OLD


def test_a_branch_a_commit_and_a_short_commit_are_found_in_the_cache(cache, repo):
    cached(cache, repo, ref="v2")
    for revision in ("v2", COMMIT, COMMIT[:7]):
        assert models.locate(f"someone/tiny@{revision}").revision == COMMIT
    assert list(models.installed()) == ["mini", "someone/tiny@v2"]
    assert "is not in the cache" in refused("someone/tiny").message


def test_a_path_into_the_cache_keeps_id_and_commit(cache, repo):
    place = models.locate(str(cached(cache, repo)))
    assert (place.name, place.revision) == ("someone/tiny", COMMIT)


@pytest.mark.parametrize("what", ["file", "nothing"])
def test_a_cache_that_is_not_a_folder_is_empty(cache, what):
    if what == "file":
        cache.write_text("x")
    assert list(hub.installed()) == ["mini"]


# --- pull ------------------------------------------------------------------------------------


def test_pull_adds_the_other_precision_and_fetches_nothing_twice(repo, fetched, capsys):
    halve(repo, keep=True)
    assert run(["models", "pull", "someone/tiny", "--precision", "full"]) == 0
    assert not any(".fp16." in file for file in fetched)
    fetched.clear()
    assert run(["models", "pull", "someone/tiny", "--precision", "half"]) == 0
    assert len(fetched) == 3 and all(".fp16." in file for file in fetched)
    fetched.clear()
    assert run(["models", "pull", "someone/tiny", "--precision", "half"]) == 0 and fetched == []
    assert capsys.readouterr().out.splitlines()[-1].endswith(COMMIT)


def test_pull_takes_only_models_of_the_hub(repo, fetched):
    assert run(["models", "pull", str(repo)]) == 2 and run(["models", "pull", "mini"]) == 2
    assert run(["models", "pull", "someone/tiny", "--precision", "double"]) == 2 and fetched == []


def test_a_file_that_arrives_damaged_is_deleted_and_refused(repo, fetched, cache, monkeypatch):
    import huggingface_hub

    original = huggingface_hub.HfApi.model_info

    def model_info(self, name, *, revision, files_metadata=False):
        info = original(self, name, revision=revision, files_metadata=files_metadata)
        for row in info.siblings:
            row.lfs = SimpleNamespace(sha256="0" * 64) if row.rfilename.startswith(UNET) else None
        return info

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    error = refused()
    assert "arrived damaged" in error.message and "try again" in error.hint
    assert not (cache / "models--someone--tiny" / "snapshots" / COMMIT / f"{UNET}.safetensors").exists()
