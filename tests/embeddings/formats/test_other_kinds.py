"""Files of other kinds that are given as a token are named, whatever their size and number of tensors."""

import io

import pytest
import torch
from safetensors.torch import save_file

from diffusekit import embeddings
from diffusekit.cli.main import run
from diffusekit.embeddings.formats import pickle_sandbox
from diffusekit.errors import FileRefused

# Names of tensors as the programs write them.
KINDS = {
    "a LoRA": [
        "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight",
        "unet.down_blocks.0.attentions.0.attn1.to_q.lora_A.weight",
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.down.weight",
        "lora_unet_mid_block.hada_w1_a",
        "lycoris_unet_mid_block.lokr_w1",
        "base_model.model.conv_in.lora_B.weight",
    ],
    "a VAE": [
        "encoder.down_blocks.0.resnets.0.conv1.weight",
        "first_stage_model.encoder.down.0.block.0.conv1.weight",
        "decoder.up.0.block.0.conv1.weight",
        "post_quant_conv.weight",
    ],
    "a checkpoint": [
        "model.diffusion_model.input_blocks.0.0.weight",
        "cond_stage_model.transformer.text_model.embeddings.position_ids",
        "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias",
    ],
    "a ControlNet": [
        "control_model.input_blocks.0.0.weight",
        "controlnet_cond_embedding.conv_in.weight",
        "controlnet_down_blocks.0.bias",
    ],
    "a hypernetwork": ["768.0.linear.0.weight", "320.1.linear.0.bias"],
    "an IP-Adapter": ["image_proj.proj.weight"],
    "a T2I-Adapter": ["body.0.block1.weight"],
    "an upscaler": ["body.0.rdb1.conv1.weight", "conv_first.weight"],
    "a motion module": ["down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"],
    "a U-Net": ["down_blocks.0.resnets.0.conv1.weight", "double_blocks.0.img_attn.proj.weight"],
    "a text encoder": ["text_model.encoder.layers.0.self_attn.q_proj.weight"],
}
FILES = [(kind, name) for kind, names in KINDS.items() for name in names]


def numbered(name: str, count: int, size: int = 4) -> dict[str, torch.Tensor]:
    return {name.replace("0", str(i), 1) if "0" in name else f"{name}.{i}": torch.ones(size) for i in range(count)}


USUAL_HINT = "use a file that holds one token of textual inversion"


def check(path, kind: str, read=embeddings.read, hint: str = "") -> None:
    with pytest.raises(FileRefused) as refused:
        read(path)
    assert refused.value.message == f"{path} is {kind}, expected a token of textual inversion"
    usual = "give it with `lora`" if kind == "a LoRA" else USUAL_HINT
    assert refused.value.hint == (hint or usual)


@pytest.mark.parametrize("count", [2, 504])
@pytest.mark.parametrize("kind,name", FILES, ids=[name[:40] for _, name in FILES])
def test_a_safetensors_file_of_another_kind_is_named(tmp_path, kind, name, count):
    tensors = numbered(name, count) if kind != "a hypernetwork" else {name: torch.ones(4), "768.extra": torch.ones(4)}
    save_file(tensors, tmp_path / "x.safetensors")
    check(tmp_path / "x.safetensors", kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", [".safetensors", ".ckpt"])
def test_a_file_too_large_for_a_token_is_named(tmp_path, kind, ending):
    path = tmp_path / f"x{ending}"
    tensors = numbered(KINDS[kind][0], 2, 3 * 2**20)
    if kind == "a hypernetwork":
        tensors = dict(zip(KINDS[kind], tensors.values(), strict=True))
    if ending == ".ckpt":
        torch.save({"state_dict": tensors}, path)
    else:
        save_file(tensors, path)
    check(path, kind)
    check(path, kind, embeddings.import_token)


def pickled(content) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickle_of_another_kind_is_named(kind):
    tensors = dict.fromkeys([*KINDS[kind], *numbered(KINDS[kind][0], 3)], torch.ones(4))
    with pytest.raises(FileRefused, match=f"^is {kind}, expected a token"):
        pickle_sandbox.convert(pickled({"state_dict": tensors} if kind == "a checkpoint" else tensors))


@pytest.mark.parametrize("more", [{}, {"step": 100, "name": "h", "layer_structure": [1, 2, 1]}])
def test_a_hypernetwork_of_a1111_is_named(more):
    layers = {"linear.0.weight": torch.ones(4, 4)}
    with pytest.raises(FileRefused, match=r"^is a hypernetwork, expected a token"):
        pickle_sandbox.convert(pickled({768: (layers, layers), 320: (layers, layers)} | more))


@pytest.mark.slow
def test_import_names_a_lora_in_a_pickle(tmp_path):
    (tmp_path / "x.pt").write_bytes(pickled(numbered(KINDS["a LoRA"][0], 4)))
    check(tmp_path / "x.pt", "a LoRA", embeddings.import_token, USUAL_HINT)


@pytest.mark.parametrize("name", ["lora_style", "control_model.", "768", "my.lora", "text_model."])
def test_one_tensor_is_a_token_whatever_its_name(tmp_path, name):
    save_file({name: torch.ones(1, 256)}, tmp_path / "x.safetensors")
    assert embeddings.read(tmp_path / "x.safetensors").token == name


def test_the_command_line_names_a_lora(tmp_path, capsys):
    save_file(numbered(KINDS["a LoRA"][0], 504), tmp_path / "detail.safetensors")
    assert run(["generate", "a cat", "--embedding", "detail.safetensors"]) == 3
    err = capsys.readouterr().err
    assert "detail.safetensors is a LoRA, expected a token of textual inversion" in err
    assert "hint: give it with --lora" in err
