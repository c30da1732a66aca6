"""Which file a name means, and which files are refused: by kind, damage, family and shape, each with its name."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusekit import lora, models
from diffusekit.errors import FileRefused, UsageError
from tests.helpers.lora_files import write_lora

KEY = "lora_unet_mid_block_attentions_0_proj_in"
PAIR = {f"{KEY}.lora_down.weight": torch.ones(2, 8), f"{KEY}.lora_up.weight": torch.ones(8, 2)}


def save(path, tensors=PAIR, metadata=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path, metadata)
    return path


# --- names -----------------------------------------------------------------------------------


def test_a_name_means_a_file_of_the_folder_or_below(tmp_path):
    ink = save(tmp_path / "loras/ink.safetensors")
    deep = save(tmp_path / "loras/styles/old/pen.safetensors")
    lcm = save(tmp_path / "loras/lcm/pytorch_lora_weights.safetensors")
    save(tmp_path / "loras/.trash/gone.safetensors")
    assert list(lora.list_files()) == ["ink", "lcm", "pen"]
    places = {name: lora.find_file(name).resolve() for name in ("ink", "ink.safetensors", "pen", "lcm")}
    assert places == {"ink": ink, "ink.safetensors": ink, "pen": deep, "lcm": lcm}


def test_files_of_one_name_are_told_apart_by_their_folder(tmp_path):
    first = save(tmp_path / "loras/a/ink.safetensors")
    save(tmp_path / "loras/b/ink.safetensors")
    assert list(lora.list_files()) == ["a/ink", "b/ink"] and lora.find_file("a/ink").resolve() == first
    with pytest.raises(UsageError) as error:
        lora.find_file("ink")
    assert error.value.hint == "write one of a/ink, b/ink"


def test_the_name_of_the_training_is_an_alias(tmp_path):
    path = save(tmp_path / "loras/v12.safetensors", metadata={"ss_output_name": "inkwash"})
    assert lora.find_file("inkwash").resolve() == path


def test_a_path_is_a_file_or_a_folder_of_diffusers_or_peft(tmp_path):
    path = save(tmp_path / "else/pen.safetensors")
    inside = save(tmp_path / "mine/adapter_model.safetensors")
    assert lora.find_file(str(path)) == lora.find_file("else/pen.safetensors").resolve() == path
    assert lora.find_file("else/pen").resolve() == path and lora.find_file("mine/").resolve() == inside
    with pytest.raises(UsageError, match="is a folder without"):
        lora.find_file("./else")
    with pytest.raises(UsageError, match="no LoRA"):
        lora.find_file(str(path), tmp_path / "loras", allow_paths=False)


def test_an_unknown_name_lists_near_ones(tmp_path):
    with pytest.raises(UsageError) as error:
        lora.find_file("ink")
    message = "there is no LoRA 'ink' in loras or the folders of models"
    assert error.value.message == message and "a path" in error.value.hint
    save(tmp_path / "loras/inks.safetensors")
    with pytest.raises(UsageError) as error:
        lora.find_file("ink")
    assert error.value.hint == "did you mean inks?"


@pytest.mark.parametrize("name", ["old", "old.pt", "loras/old.pt"])
def test_pickles_are_refused_with_a_hint(tmp_path, name):
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras/old.pt").write_bytes(b"PK")
    with pytest.raises(FileRefused) as error:
        lora.find_file(name)
    assert "old.pt is a pickle" in error.value.message and ".safetensors" in error.value.hint


def test_files_in_the_folders_of_other_programs_are_found(tmp_path, monkeypatch):
    """Those that the user names, and ./models; loras/ counts first."""
    (tmp_path / "webui/models/Stable-diffusion").mkdir(parents=True)
    theirs = save(tmp_path / "webui/models/Lora/styles/ink.safetensors")
    save(tmp_path / "models/loras/pen.safetensors")
    monkeypatch.setenv("DIFFUSEKIT_MODELS", str(tmp_path / "webui"))
    assert list(lora.list_files()) == ["pen", "ink"] and lora.find_file("ink") == theirs
    ours = save(tmp_path / "loras/ink.safetensors")
    assert lora.find_file("ink").resolve() == ours
    (tmp_path / "webui/models/Lora/old.pt").write_bytes(b"PK")
    with pytest.raises(FileRefused, match=r"old\.pt is a pickle"):
        lora.find_file("old")


# --- hashes ----------------------------------------------------------------------------------


def test_the_hash_is_that_of_the_tensors_whatever_the_metadata(tmp_path):
    first = save(tmp_path / "a.safetensors")
    second = save(tmp_path / "b.safetensors", metadata={"ss_tag": "x"})
    assert first.read_bytes() != second.read_bytes() and lora.hash_lora(first) == lora.hash_lora(second)
    third = save(tmp_path / "c.safetensors", {name: tensor * 2 for name, tensor in PAIR.items()})
    assert lora.find_by_hash(lora.hash_lora(third)[:12], [first, third]) == third
    assert lora.find_by_hash("0" * 12, [first, third]) is None and lora.find_by_hash("", [first]) is None


# --- refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names,said",
    [
        ([f"{KEY}.hada_w1_a"], "a LoHa of LyCORIS"),
        ([f"{KEY}.lokr_w1"], "a LoKr of LyCORIS"),
        ([*PAIR, f"{KEY}.dora_scale"], "a DoRA"),
        ([*PAIR, "unet.a.lora_magnitude_vector"], "a DoRA"),
        ([f"{KEY}.oft_blocks"], "an OFT"),
        ([f"{KEY}.a1.weight"], "a GLoRA"),
        ([*PAIR, f"{KEY}.diff"], "changes of whole weights"),
        ([*PAIR, f"{KEY}.w_norm"], "norm layers"),
        ([*PAIR, "unet.a.lora_B.bias"], "a LoRA with biases"),
        ([*PAIR, "strange.weight"], "'strange.weight'"),
        (["lora_unet_double_blocks_0_img_attn_proj.lora_down.weight"], "a LoRA for FLUX"),
        (["transformer.transformer_blocks.0.attn.to_q.lora_A.weight"], "a LoRA for Stable Diffusion 3"),
        ([next(iter(PAIR))], "lacks the matrix 'up'"),
        (["bundle_emb.x.string_to_param"], "no tensors of a LoRA"),
        (["model.diffusion_model.input_blocks.0.0.weight"], "'model.diffusion_model.input_blocks.0.0.weight'"),
    ],
)
def test_other_kinds_are_refused_by_name(tmp_path, names, said):
    path = save(tmp_path / "x.safetensors", {name: PAIR.get(name, torch.ones(2, 2)) for name in names})
    with pytest.raises(FileRefused) as error:
        lora.load_lora(path)
    assert said in error.value.message and str(path) in error.value.message and error.value.hint


@pytest.mark.parametrize(
    "changes,said",
    [
        ({f"{KEY}.lora_up.weight": torch.ones(8, 3)}, "do not fit each other"),
        ({f"{KEY}.lora_up.weight": torch.full((8, 2), torch.nan)}, "NaN"),
        ({f"{KEY}.alpha": torch.tensor(torch.inf)}, "NaN or infinity"),
        ({f"{KEY}.alpha": torch.ones(3)}, "do not fit each other"),
        ({f"unet.{KEY.removeprefix('lora_unet_')}.lora_A.weight": torch.ones(2, 8)}, "two matrices"),
    ],
)
def test_damaged_files_are_refused(tmp_path, changes, said):
    path = save(tmp_path / "x.safetensors", PAIR | changes)
    with pytest.raises(FileRefused, match=said):
        lora.load_lora(path)


def test_what_is_no_safetensors_file_is_refused(tmp_path):
    path = save(tmp_path / "x.safetensors")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(FileRefused, match="cut off"):
        lora.load_lora(path)
    with pytest.raises(FileRefused, match="cannot open"):
        lora.load_lora(tmp_path / "y.safetensors")


# --- models ----------------------------------------------------------------------------------


def test_a_file_for_another_family_is_refused_in_words(random_models, tmp_path):
    model = models.load(str(random_models["sd1"]), "cpu", "float32")
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    wide = {f"{layer}.lora_down.weight": torch.ones(2, 2048), f"{layer}.lora_up.weight": torch.ones(32, 2)}
    second = {f"lora_te2_x.{end}": torch.ones(2, 2) for end in ("lora_down.weight", "lora_up.weight")}
    for number, tensors in enumerate((wide, PAIR | second)):
        weights = lora.load_lora(save(tmp_path / f"{number}.safetensors", tensors))
        with pytest.raises(FileRefused) as error:
            lora.match_layers(model, weights, "xl")
        assert error.value.message == (
            "xl is a LoRA for Stable Diffusion XL, and the model sd1 is a Stable Diffusion 1.x model"
        )
        assert error.value.hint == "use a LoRA for Stable Diffusion 1.x, or a Stable Diffusion XL model"


def test_shapes_that_do_not_fit_and_layers_that_are_not_there_are_named(random_models, tmp_path):
    model = models.load(str(random_models["sd1"]), "cpu", "float32")
    with pytest.raises(FileRefused) as error:
        lora.match_layers(model, lora.load_lora(save(tmp_path / "x.safetensors")), "x")
    assert "mid_block_attentions_0_proj_in' has the shape 8 × 8, expected 64 × 64" in error.value.message
    nowhere = {name.replace("mid_block", "no_block"): tensor for name, tensor in PAIR.items()}
    with pytest.raises(FileRefused) as error:
        lora.match_layers(model, lora.load_lora(save(tmp_path / "y.safetensors", nowhere)), "y")
    assert "matched 0 of 1 layers of the model sd1" in error.value.message
    path = write_lora(tmp_path / "z.safetensors", random_models["sd1"], "kohya")
    save(path, load_file(path) | nowhere)
    match = lora.match_layers(model, lora.load_lora(path), "z")
    assert str(match) == f"the LoRA z matched {match.total - 1} of {match.total} layers"
    assert match.unmatched == "no_block_attentions_0_proj_in"
