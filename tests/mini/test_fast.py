"""Few steps: other defaults, a LoRA merged into the U-Net, and how that LoRA is trained."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import diffusekit
from diffusekit import models
from diffusekit.config import resolve_settings
from diffusekit.errors import ModelError
from diffusekit.settings import FAST_DEFAULTS, GenerateSettings

LINEAR = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
CONV = "down_blocks.0.resnets.0.conv1"


@pytest.fixture
def copy(families, tmp_path) -> Path:
    return Path(shutil.copytree(families["sd1"], tmp_path / "copy"))


def factors(unet, layer: str, rank: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    shape = unet.get_submodule(layer).weight.shape
    flat = (1,) * (len(shape) - 2)
    return {
        f"unet.{layer}.lora_A.weight": torch.randn(rank, *shape[1:]),
        f"unet.{layer}.lora_B.weight": torch.randn(shape[0], rank, *flat),
    }


def test_fast_has_other_defaults():
    plain, fast = GenerateSettings(), GenerateSettings(fast=True)
    assert {name: getattr(fast, name) for name in FAST_DEFAULTS} == FAST_DEFAULTS
    assert all(getattr(plain, name) != value for name, value in FAST_DEFAULTS.items())
    own = GenerateSettings(fast=True, steps=6, guidance_scale=None)
    assert (own.steps, own.guidance_scale, own.sampler) == (6, 1.0, "ddim")
    assert GenerateSettings(**fast.model_dump()) == fast  # as a record is read again


def test_fast_from_the_environment(monkeypatch):
    monkeypatch.setenv("DIFFUSEKIT_FAST", "yes")
    assert resolve_settings(GenerateSettings, "generate", {}).steps == FAST_DEFAULTS["steps"]
    monkeypatch.setenv("DIFFUSEKIT_FAST", "no")
    assert resolve_settings(GenerateSettings, "generate", {}).steps is None


def test_a_lora_is_added_to_the_weights(copy):
    plain = models.load(str(copy), "cpu")
    given = factors(plain.unet, LINEAR) | factors(plain.unet, CONV)
    save_file(given, copy / models.FAST_LORA)
    fast = models.load(str(copy), "cpu", fast=True)
    assert fast.fast and not plain.fast
    weights = dict(plain.unet.named_parameters())
    for name, weight in fast.unet.named_parameters():
        layer = name.removesuffix(".weight")
        if layer in (LINEAR, CONV):
            a, b = (given[f"unet.{layer}.lora_{k}.weight"].flatten(1) for k in "AB")
            expected = weights[name] + (b @ a).view_as(weight)
            assert not torch.equal(weight, weights[name])
            torch.testing.assert_close(weight, expected)
        else:
            assert torch.equal(weight, weights[name])
    assert models.fingerprint(fast) == models.fingerprint(plain)  # learned tokens fit both


def test_a_model_without_a_lora_says_so(copy):
    with pytest.raises(ModelError) as error:
        diffusekit.generate("a cat", model=str(copy), fast=True)
    assert "no few-step LoRA" in error.value.message and "fast" in error.value.hint


def test_a_negative_prompt_without_effect_gives_a_warning(mini, caplog):
    diffusekit.generate("a cat", negative_prompt="a dog", steps=1, guidance_scale=2)
    assert "negative_prompt" not in caplog.text
    diffusekit.generate("a cat", negative_prompt="a dog", steps=1, guidance_scale=1)
    assert "`negative_prompt` has no effect" in caplog.text


def test_a_broken_lora_is_refused(copy):
    (copy / models.FAST_LORA).write_bytes(b"no weights at all")
    with pytest.raises(ModelError):
        models.load(str(copy), "cpu", fast=True)
    save_file({f"unet.{LINEAR}.lora_A.weight": torch.ones(1, 2)}, copy / models.FAST_LORA)
    with pytest.raises(ModelError):
        models.load(str(copy), "cpu", fast=True)


def test_one_ddim_step_with_the_trained_velocity_reaches_the_next_waypoint():
    from training.mini import distill
    from training.mini.config import RECIPES
    from training.mini.runtime import Runtime
    from training.mini.unet import build_unet, make_scheduler

    runtime = Runtime(torch.device("cpu"), Path("work"))
    student = distill.Student(runtime, build_unet(RECIPES["cpu"]))
    torch.manual_seed(0)
    channels = student.unet.config.in_channels
    start, end = torch.randn(2, distill.SEGMENTS, channels, 16, 16)
    segment, states = torch.arange(distill.SEGMENTS), torch.zeros(distill.SEGMENTS, 77, 256)
    # The error of a new U-Net, which predicts zero, is the whole velocity. The sampler must arrive with it.
    now, then = (student.alphas[k][:, None, None, None] for k in (segment, segment + 1))
    a, s, b, r = now.sqrt(), (1 - now).sqrt(), then.sqrt(), (1 - then).sqrt()
    velocity = ((b * a + r * s) * start - end) / (b * s - r * a)
    errors = student.errors(start, end, segment, states)
    torch.testing.assert_close(errors, velocity.square().mean((1, 2, 3)), rtol=1e-3, atol=1e-3)
    sampler = make_scheduler()
    sampler.set_timesteps(distill.SEGMENTS)
    for k, t in enumerate(sampler.timesteps):
        arrived = sampler.step(velocity[k : k + 1], t, start[k : k + 1]).prev_sample
        torch.testing.assert_close(arrived, end[k : k + 1], rtol=1e-3, atol=1e-3)


def test_the_trained_lora_merges_to_the_same_weights(tmp_path):
    """The weights of the student are those of a U-Net with the file merged into it."""
    from diffusekit.models.lora import merge_lora
    from training.mini import distill
    from training.mini.config import RECIPES
    from training.mini.unet import build_unet

    torch.manual_seed(0)
    plain, student = build_unet(RECIPES["cpu"]), build_unet(RECIPES["cpu"])
    student.load_state_dict(plain.state_dict())
    changes = distill.add_low_rank(student)
    for change in changes.values():
        torch.nn.init.normal_(change.up, std=0.1)
    save_file(distill.lora_state_dict(changes), tmp_path / "lora.safetensors")
    merge_lora(plain.requires_grad_(False), tmp_path / "lora.safetensors")
    for layer in changes:
        ours, theirs = (u.get_submodule(layer).weight for u in (plain, student))
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3)  # the file is in fp16
    assert not any(name.startswith(("conv_in", "conv_out", "time_embedding")) for name in changes)
