"""Converting models: what is written loads in diffusers with the same weights, or is refused whole."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusekit import model_files, models
from diffusekit.cli.main import run
from diffusekit.errors import DiskError, ModelError, UsageError
from diffusekit.models.convert import convert
from tests.helpers.one_file import edit, match_file, write_one_file

KINDS = ("sd1", "sd2", "sdxl-inpainting")


@pytest.fixture(scope="session")
def sources(random_models, tmp_path_factory):
    """For every kind: a folder and the file that has the same networks."""
    root = tmp_path_factory.mktemp("sources")

    def find(kind: str) -> tuple[Path, Path]:
        folder, file = root / kind, root / f"{kind}-file.safetensors"
        if not file.exists():
            write_one_file(match_file(random_models[kind], folder), file)
        return folder, file

    return find


def pipeline(folder: Path):
    import diffusers

    name = json.loads((folder / "model_index.json").read_text())["_class_name"]
    return getattr(diffusers, name)


def networks(pipe) -> dict[str, torch.Tensor]:
    parts = ("unet", "vae", "text_encoder", "text_encoder_2")
    return {
        f"{part}.{name}": tensor
        for part in parts
        if getattr(pipe, part, None) is not None
        for name, tensor in getattr(pipe, part).state_dict().items()
    }


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_diffusers_loads_what_is_written_from_folder_and_file(sources, tmp_path, kind):
    folder, file = sources(kind)
    loader = pipeline(folder)
    expected = networks(loader.from_pretrained(folder))
    prediction = "v_prediction" if kind == "sd2" else None
    convert(str(folder), tmp_path / "one.safetensors")
    convert(str(file), tmp_path / "back", prediction_type=prediction)
    one = loader.from_single_file(str(tmp_path / "one.safetensors"), config=str(folder), local_files_only=True)
    back = loader.from_pretrained(tmp_path / "back")
    assert same(networks(one), expected) and same(networks(back), expected)
    ids = back.tokenizer("a photo of naïve cats", padding="max_length").input_ids
    assert ids == one.tokenizer("a photo of naïve cats", padding="max_length").input_ids
    assert back.scheduler.config.prediction_type == one.scheduler.config.prediction_type
    described = model_files.describe("one", tmp_path / "one.safetensors")
    assert not described.problem and not described.notes  # the metadata says what it predicts


@pytest.mark.slow
def test_precisions_are_converted_and_kept(sources, tmp_path):
    folder, file = sources("sd1")
    convert(str(folder), tmp_path / "half.safetensors", dtype="float16")
    convert(str(tmp_path / "half.safetensors"), tmp_path / "kept")
    convert(str(tmp_path / "half.safetensors"), tmp_path / "full", dtype="float32")
    original = load_file(file)
    half = load_file(tmp_path / "half.safetensors")
    assert {tensor.dtype for tensor in half.values()} == {torch.float16}
    assert all(torch.equal(tensor, original[name].half()) for name, tensor in half.items())
    weights = "unet/diffusion_pytorch_model.safetensors"
    kept, full = load_file(tmp_path / "kept" / weights), load_file(tmp_path / "full" / weights)
    assert {t.dtype for t in kept.values()} == {torch.float16} and {t.dtype for t in full.values()} == {torch.float32}
    assert all(torch.equal(tensor, kept[name].float()) for name, tensor in full.items())
    assert models.load(str(tmp_path / "kept"), "cpu").unet.dtype == torch.float32


@pytest.mark.slow
def test_averaged_weights_are_taken_where_they_are_asked_for(sources, tmp_path):
    folder, file = sources("sd1")
    ema = write_one_file(folder, tmp_path / "ema.safetensors", ema=True)
    convert(str(ema), tmp_path / "plain.safetensors")
    convert(str(ema), tmp_path / "averaged.safetensors", ema=True)
    plain, averaged = load_file(tmp_path / "plain.safetensors"), load_file(tmp_path / "averaged.safetensors")
    assert plain.keys() == load_file(file).keys() == averaged.keys()
    unet = [name for name in averaged if name.startswith("model.diffusion_model.")]
    assert unet and all(not averaged[name].any() for name in unet)
    with pytest.raises(ModelError, match="has no averaged weights"):
        convert(str(file), tmp_path / "none.safetensors", ema=True)
    assert not (tmp_path / "none.safetensors").exists()


@pytest.mark.slow
def test_velocity_and_a_zero_terminal_schedule_stay_with_a_file(random_models, tmp_path, caplog):
    folder = match_file(random_models["sdxl"], tmp_path / "noob")
    velocity = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    edit(folder / "scheduler" / "scheduler_config.json", **velocity)
    convert(str(folder), tmp_path / "one.safetensors")
    assert {"v_pred", "ztsnr"} <= load_file(tmp_path / "one.safetensors").keys()
    assert "does not say how" not in caplog.text
    schedule = model_files.read_file("one", tmp_path / "one.safetensors").configs["scheduler"]
    assert {key: schedule[key] for key in velocity} == velocity


def test_what_a_file_cannot_say_is_refused(random_models, tmp_path):
    """These models have more attention heads than their families."""
    with pytest.raises(ModelError, match=r"cannot say that the text_encoder of sd1 has num_attention_heads 4"):
        convert(str(random_models["sd1"]), tmp_path / "one.safetensors")
    with pytest.raises(ModelError, match=r"has no place for 'time_embedding\.cond_proj\.weight' of the U-Net"):
        convert(str(random_models["lcm"]), tmp_path / "one.safetensors")
    assert not list(tmp_path.iterdir())


def test_nothing_is_replaced_unless_asked_and_never_in_part(sources, tmp_path, monkeypatch):
    folder, file = sources("sd1")
    target = Path(shutil.copy(file, tmp_path / "one.safetensors"))
    before = target.read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        convert(str(folder), target)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a")
    with pytest.raises(UsageError, match="is not a model, so it is not replaced"):
        convert(str(file), tmp_path / "notes", overwrite=True)
    with pytest.raises(UsageError, match="is the model itself"):
        convert(str(target), target, overwrite=True)
    with pytest.raises(UsageError, match="would be a pickle"):
        convert(str(file), tmp_path / "one.ckpt")

    def fail(count: int) -> None:
        raise OSError(28, "No space left on device")

    for name in ("one.safetensors", "new.safetensors", "new"):
        with pytest.raises(DiskError, match="No space left"):
            convert(str(folder), tmp_path / name, overwrite=True, on_progress=fail)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1))
    with pytest.raises(DiskError, match="are needed, and the disk of"):
        convert(str(folder), tmp_path / "new.safetensors")
    assert target.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "one.safetensors"]


def test_the_command_prints_the_target_and_replaces_a_folder_whole(sources, tmp_path, capsys):
    _, file = sources("sd1")
    target = tmp_path / "there"
    assert run(["models", "convert", str(file), str(target), "--dtype", "float16"]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    (target / "old.txt").write_text("old")
    assert run(["models", "convert", str(file), str(target)]) == 2
    assert "set --overwrite" in capsys.readouterr().err
    assert run(["models", "convert", str(file), str(target), "--overwrite"]) == 0
    assert not (target / "old.txt").exists() and model_files.describe("x", target).precision == "float32"
    assert run(["models", "convert", str(file), str(target), "--dtype", "int8"]) == 2


def test_a_checkpoint_of_8_bit_numbers_gets_16(sources, tmp_path):
    _, file = sources("sd1")
    tensors = load_file(file)
    save_file({name: tensor.to(torch.float8_e4m3fn) for name, tensor in tensors.items()}, tmp_path / "f8.safetensors")
    assert model_files.read_file("f8", tmp_path / "f8.safetensors").precision == "8-bit"
    convert(str(tmp_path / "f8.safetensors"), tmp_path / "half.safetensors")
    assert {tensor.dtype for tensor in load_file(tmp_path / "half.safetensors").values()} == {torch.float16}
