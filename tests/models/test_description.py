"""What the files of a model say before any weights are read."""

import shutil
from pathlib import Path

import pytest

from diffusekit.errors import ModelError
from diffusekit.model_files import describe
from diffusekit.model_files.description import name_precisions
from diffusekit.models import MINI


def test_a_whole_folder_is_described_with_the_size_of_each_part(families):
    model = describe("mine", families["sd2"])
    assert (model.kind, model.layout, model.task, model.problem) == ("model", "folder", "text", "")
    assert model.prediction_type == "v_prediction" and model.precision == "float32" and model.native_size == 16
    assert model.family is not None and model.family.name == "sd2" and model.label == "Stable Diffusion 2.x"
    assert [part.name for part in model.parts] == ["text_encoder", "unet", "vae"]
    weights = sum((families["sd2"] / part.files[0]).stat().st_size for part in model.parts)
    headers = 200_000  # bytes, at most
    assert weights - headers < model.memory(half=False) <= weights
    assert model.memory(half=True) * 2 == model.memory(half=False)
    model.check()


def test_a_damaged_folder_is_described_as_far_as_it_goes(families):
    shutil.copytree(families["sd1"], "broken")
    shutil.rmtree("broken/vae")
    model = describe("broken", Path("broken"))
    assert model.missing == ("vae",) and "no vae" in model.problem and model.hint
    with pytest.raises(ModelError, match="no vae"):
        model.check()


def test_what_is_not_a_model_has_a_problem_and_no_kind(tmp_path):
    Path("notes.txt").write_text("hello")
    for path in (Path("notes.txt"), tmp_path, Path("nowhere")):
        model = describe(path.name, path)
        assert model.problem and model.kind == "" and model.summary() == "unknown"


def test_precisions_are_named_if_they_count():
    assert name_precisions({"F16": 1000, "F32": 500, "I64": 1}) == "float16 and float32"
    assert name_precisions({}) == ""
    assert describe("mini", MINI).precision == "float16"


def test_a_model_of_few_steps_says_so(random_models):
    model = describe("mine", random_models["lcm"])
    assert model.defaults is not None and model.defaults.kind == "an LCM" and "an LCM" in model.summary()
    xl = describe("xl", random_models["sdxl-inpainting"])
    assert xl.summary().startswith("Stable Diffusion XL for inpainting") and len(xl.parts) == 4
