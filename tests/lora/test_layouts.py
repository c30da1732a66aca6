"""With a LoRA in any layout, networks compute what they compute in diffusers with `load_lora_weights`."""

import json

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusekit import lora, models
from diffusekit.lora_request import parse_request
from tests.helpers.lora_files import write_lora

CLASSES = {"sd1": "StableDiffusionPipeline", "sd2": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}


def outputs(config, unet, encoders):
    """What the U-Net and each text encoder give for fixed random input."""
    torch.manual_seed(1)
    ids, states = torch.randint(0, 400, (1, 77)), torch.randn(1, 77, config.cross_attention_dim)
    added = {}
    if config.addition_embed_type:
        added = {"added_cond_kwargs": {"text_embeds": torch.randn(1, 48), "time_ids": torch.randn(1, 6)}}
    with torch.no_grad():
        hidden = [encoder(ids, output_hidden_states=True).hidden_states[-1] for encoder in encoders]
        return [unet(torch.randn(1, 4, 8, 8), 10, states, **added).sample, *hidden]


def ours(model, *loras):
    """What our networks give with (path, request) of each LoRA."""
    fitted = [(lora.load_lora(path), parse_request(request)) for path, request in loras]
    for weights, request in fitted:
        match = lora.match_layers(model, weights, request.name)
        assert match.matched == match.total == len(weights.layers)
    adapter = lora.LoraAdapter(model, fitted)
    with adapter.applied_to_text():
        return outputs(model.unet.config, adapter.adapt(model.unet), model.text_encoders)


def theirs(folder, kind, *loras):
    """What diffusers' networks give with (path, strength) of each LoRA."""
    pipe = getattr(diffusers, CLASSES[kind]).from_pretrained(folder)
    for number, (path, _) in enumerate(loras):
        tensors = {k.replace("base_model.model.", "unet."): tensor for k, tensor in load_file(path).items()}
        pipe.load_lora_weights(tensors, adapter_name=str(number))
    pipe.set_adapters([str(number) for number in range(len(loras))], [strength for _, strength in loras])
    encoders = (pipe.text_encoder, getattr(pipe, "text_encoder_2", None))
    return outputs(pipe.unet.config, pipe.unet, [encoder for encoder in encoders if encoder is not None])


def largest(first, second):
    return max((a - b).abs().max().item() for a, b in zip(first, second, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind,layout,more",
    [
        ("sd1", "kohya", {"alpha": 2.0}),
        ("sd1", "diffusers", {"convolutions": True}),
        ("sd1", "processors", {}),
        ("sd2", "kohya", {"alpha": 1.0, "convolutions": True}),
        ("sd2", "old diffusers", {}),
        ("sdxl", "original", {"alpha": 2.0, "convolutions": True}),
        ("sdxl", "kohya", {}),
        ("sdxl", "peft", {"text": False}),
    ],
)
def test_networks_equal_those_of_diffusers(random_models, tmp_path, kind, layout, more):
    folder = random_models[kind]
    model = models.load(str(folder), "cpu", "float32")
    path = write_lora(tmp_path / "x.safetensors", folder, layout, **more)
    before = outputs(model.unet.config, model.unet, model.text_encoders)
    changed = ours(model, (path, "x:0.7"))
    assert largest(changed, theirs(folder, kind, (path, 0.7))) < 1e-4
    assert changed[0].sub(before[0]).abs().max() > 0.1, "the LoRA changes something"
    after = outputs(model.unet.config, model.unet, model.text_encoders)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)), "the base is what it was"


@pytest.mark.slow
def test_several_files_add_up_as_in_diffusers(random_models, tmp_path):
    folder = random_models["sd1"]
    model = models.load(str(folder), "cpu", "float32")
    a = write_lora(tmp_path / "a.safetensors", folder, "kohya", alpha=1.0)
    b = write_lora(tmp_path / "b.safetensors", folder, "diffusers", convolutions=True, seed=1)
    expected = theirs(folder, "sd1", (a, 0.5), (b, -0.3))
    assert largest(ours(model, (a, "a:0.5"), (b, "b:-0.3")), expected) < 1e-4


def test_text_encoder_and_unet_have_their_own_strengths(random_models, tmp_path):
    folder = random_models["sd1"]
    model = models.load(str(folder), "cpu", "float32")
    path = write_lora(tmp_path / "x.safetensors", folder, "kohya", alpha=2.0)
    base, both = ours(model, (path, "x:0")), ours(model, (path, "x:0.5"))
    unet, text = ours(model, (path, "x:te=0:unet=0.5")), ours(model, (path, "x:0.5:0"))
    assert [torch.equal(a, b) for a, b in zip(unet, both, strict=True)] == [True, False]
    assert [torch.equal(a, b) for a, b in zip(text, both, strict=True)] == [False, True]
    assert [torch.equal(a, b) for a, b in zip(unet, base, strict=True)] == [False, True]


def test_the_tucker_form_of_locon_is_the_same_product(tmp_path):
    """LyCORIS' `lora_mid`: a 1 × 1 convolution, the kernel, and a 1 × 1 convolution in a row."""
    torch.manual_seed(0)
    down, mid, up = torch.randn(3, 32, 1, 1), torch.randn(3, 3, 3, 3), torch.randn(32, 3, 1, 1)
    key = "lora_unet_down_blocks_0_resnets_0_conv1"
    tensors = {f"{key}.lora_down.weight": down, f"{key}.lora_mid.weight": mid, f"{key}.lora_up.weight": up}
    save_file(tensors | {f"{key}.alpha": torch.tensor(1.5)}, tmp_path / "x.safetensors")
    (layer,) = lora.load_lora(tmp_path / "x.safetensors").layers.values()
    x, conv = torch.randn(1, 32, 8, 8), torch.nn.functional.conv2d
    found = layer.scale * conv(conv(x, layer.down, padding=1), layer.up)
    torch.testing.assert_close(found, 0.5 * conv(conv(conv(x, down), mid, padding=1), up))


def test_alpha_of_peft_comes_from_its_configuration(tmp_path):
    """In the metadata where diffusers writes it, and in adapter_config.json beside the file."""
    tensors = {"lora_A.weight": torch.ones(4, 8), "lora_B.weight": torch.ones(8, 4)}
    ours = {f"unet.mid_block.{n}.to_q.{k}": t.clone() for n in "ab" for k, t in tensors.items()}
    config = {"unet.lora_alpha": 8, "unet.alpha_pattern": {"b.to_q": 2}, "unet.r": 4}
    save_file(ours, tmp_path / "x.safetensors", {"lora_adapter_metadata": json.dumps(config)})
    assert [layer.scale for layer in lora.load_lora(tmp_path / "x.safetensors").layers.values()] == [2.0, 0.5]
    theirs = {key.replace("unet.", "base_model.model."): tensor for key, tensor in ours.items()}
    save_file(theirs, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 6, "r": 4, "use_rslora": true}')
    scales = {layer.scale for layer in lora.load_lora(tmp_path / "adapter_model.safetensors").layers.values()}
    assert scales == {3.0}
