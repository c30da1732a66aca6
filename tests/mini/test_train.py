"""Training `mini`: from scratch to a folder that plain diffusers loads, continued, and fine-tuned."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close as close
from transformers import CLIPTokenizer

from diffusekit import latents, models
from diffusekit.models import MINI
from tests.helpers import ROOT
from training.mini import finetune, loss_curves, text_encoder, widen
from training.mini.__main__ import main
from training.mini.config import RECIPES
from training.mini.dataset import foreground_mask, to_tensor, tokenize
from training.mini.optimizers import Muon, orthogonalize, warm_then_decay
from training.mini.runtime import Runtime, TimeBudget
from training.mini.unet import UNetTrainer, build_unet, latent_shape, make_scheduler, timestep_weights
from training.mini.vae import build as build_vae
from training.mini.world.scenes import Scene, Thing, draw_with_instances

STAGES = (
    ("fast", {"fast.safetensors"}),
    ("text", {"text_encoder/model.safetensors"}),
    # The few-step LoRA belongs to the U-Net of before, so a stage that changes the U-Net removes it.
    ("unet", {"unet/diffusion_pytorch_model.safetensors", "fast.safetensors"}),
    ("decoder", {"vae/diffusion_pytorch_model.safetensors"}),
    ("tower", {"image_encoder/model.safetensors", "text_projection.safetensors"}),
)
GALAXY = Scene((Thing("galaxy", None),), background="space")


def train(folder, *more: str) -> str:
    """Run the training command in this process, with the smallest sizes, and return its log."""
    sizes = ("--steps", "1", "--images", "32", "--recipe", "cpu")
    main([*sizes, "--work", str(folder / "work"), "--output", str(folder / "model"), *more])
    return (folder / "work" / "log.txt").read_text()


def sums(model):
    return {line.split()[1]: line.split()[0] for line in (model / "SHA256SUMS").read_text().splitlines()}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A model trained from scratch for one step: its folder and the log."""
    folder = tmp_path_factory.mktemp("scratch")
    return folder, train(folder)


@pytest.mark.slow
def test_training_from_scratch_gives_a_model_that_diffusers_loads(scratch):
    from diffusers import StableDiffusionPipeline

    folder, log = scratch
    assert "the first loss is 1.0" in log or "the first loss is 0.9" in log
    pipe = StableDiffusionPipeline.from_pretrained(folder / "model")
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a cat", num_inference_steps=1).images[0].size == (128, 128)


@pytest.mark.slow
def test_the_same_command_continues_training(scratch):
    folder, _ = scratch
    log = train(folder, "--steps", "2")
    assert "parameters, step 1" in log and "unet: 2 steps" in log


@pytest.mark.slow
def test_a_stage_changes_only_its_own_weights(scratch, tmp_path):
    for stage, weights in STAGES:
        first = tmp_path / "fast" / "model" if stage == "unet" else scratch[0] / "model"
        folder = tmp_path / stage
        train(folder, "--from", str(first), "--stage", stage, "--seed", "1")
        before, after = sums(first), sums(folder / "model")
        assert {name for name in before | after if before.get(name) != after.get(name)} == weights
        for kept in ("tokenizer/tokenizer.json", "unet/config.json", "vae/config.json"):
            assert (first / kept).read_bytes() == (folder / "model" / kept).read_bytes()


def test_the_training_command_has_its_old_flags(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    flags = ("--minutes", "--steps", "--recipe", "--pictures", "--work", "--output", "--from", "--stage", "--seed")
    text = capsys.readouterr().out
    assert all(flag in text for flag in flags)


def test_the_noise_schedule_ends_in_noise_and_its_timesteps_have_weights():
    alphas = make_scheduler().alphas_cumprod
    assert 0 < alphas[-1] < 1e-4
    weights = timestep_weights(alphas)
    assert weights.sum() == pytest.approx(1, abs=1e-4) and (weights > 0).all()
    snr = (alphas / (1 - alphas)).log()
    assert abs(snr[weights.argmax()]) < 0.7


def test_a_new_unet_predicts_zero():
    unet = build_unet(RECIPES["cpu"])
    assert 11e6 <= sum(p.numel() for p in unet.parameters()) <= 24e6
    with torch.no_grad():
        noise, states = torch.randn(1, *latent_shape(unet)), torch.randn(1, 77, 256)
        found = unet(noise, torch.tensor([500]), states).sample
    assert found.abs().max() == 0


def test_a_channel_that_is_hard_to_predict_does_not_dominate_the_loss(tmp_path):
    words = CLIPTokenizer.from_pretrained(MINI / "tokenizer")
    recipe = replace(RECIPES["cpu"], text_layers=1)
    runtime = Runtime(torch.device("cpu"), tmp_path)
    trainer = UNetTrainer(recipe, runtime, text_encoder.build(recipe, words), words)
    nothing, t = torch.zeros(3, 6, 16, 16), torch.tensor([10, 500, 990])
    eps = torch.randn_like(nothing) * torch.tensor([0.1, 0.2, 0.5, 1, 2, 5])[:, None, None]
    ids = trainer.empty.repeat(3, 1)
    with torch.no_grad():  # a new U-Net predicts zero, so its error is the velocity
        plain = trainer.loss(nothing, ids, t, eps)
        weighted = trainer.loss(nothing, ids, t, eps, torch.ones(3, 16, 16))
    errors = (trainer.alphas[t][:, None, None, None] * eps**2).mean((0, 2, 3))
    close(plain.mean(), errors.mean(), rtol=1e-3, atol=0)
    close(weighted.mean(), 1 / (1 / errors).mean(), rtol=1e-3, atol=0)


def test_muon_takes_steps_of_equal_size_in_every_direction():
    weights = torch.randn(3, 8, 20, generator=torch.Generator().manual_seed(1)) ** 3
    sizes = torch.linalg.svdvals(orthogonalize(weights))
    assert sizes.min() > 0.3 and sizes.max() < 1.3 < torch.linalg.svdvals(weights).max()
    assert torch.equal(orthogonalize(weights.mT), orthogonalize(weights).mT)

    layer = torch.nn.Conv2d(6, 4, 3, bias=False)
    before = layer.weight.detach().clone()
    muon = Muon(layer.parameters(), lr=0.01, weight_decay=0.0)
    layer(torch.randn(2, 6, 9, 9)).square().sum().backward()
    muon.step()
    moved = (layer.weight.detach() - before).square().mean().sqrt()
    assert moved == pytest.approx(0.01 * 0.2, rel=0.3)  # 0.2 is about AdamW's step


def test_new_layers_of_a_text_encoder_change_nothing_before_training():
    words = CLIPTokenizer.from_pretrained(ROOT / "diffusekit" / "mini" / "tokenizer")
    recipe = replace(RECIPES["cpu"], text_layers=1)
    torch.manual_seed(1)
    text = text_encoder.build(recipe, words).eval()
    ids = tokenize(words, ["a red cat left of a blue dog"])
    deeper = text_encoder.add_layers(text, 3).eval()
    assert len(deeper.encoder.layers) == 3 and deeper.config.num_hidden_layers == 3
    with torch.no_grad():
        assert torch.equal(text(ids).last_hidden_state, deeper(ids).last_hidden_state)


def test_training_a_text_encoder_further_penalizes_drift(tmp_path):
    words = CLIPTokenizer.from_pretrained(ROOT / "diffusekit" / "mini" / "tokenizer")
    recipe = replace(RECIPES["cpu"], text_layers=1)
    text = text_encoder.build(recipe, words)
    runtime = Runtime(torch.device("cpu"), tmp_path)
    training = text_encoder.TextEncoderTrainer(recipe, runtime, words, text)
    assert training.domain.pairs == text_encoder.MIN_PAIR_SHARE > recipe.domain.pairs
    training.loss(0)
    assert training.drift < 1e-4
    with torch.no_grad():
        text.final_layer_norm.bias += 1.0
    training.loss(0)
    assert training.drift == pytest.approx(0.02, rel=0.1)  # a running mean of squares of one


def test_new_latent_channels_change_nothing_before_training():
    """The old channels are as before. The decoder reads the new ones, and the U-Net ignores them."""
    torch.manual_seed(1)
    recipe = replace(RECIPES["cpu"], latent_channels=4, side=32)
    vae, net = build_vae(recipe).eval(), build_unet(recipe).eval()
    for layer in (net.conv_out, vae.quant_conv, vae.post_quant_conv):
        torch.nn.init.normal_(layer.weight)
        torch.nn.init.normal_(layer.bias)
    codec, unet = widen.widen_vae(vae, 6), widen.widen_unet(net, 6)
    assert codec.config.latent_channels == unet.config.in_channels == unet.config.out_channels == 6
    images, states = torch.rand(2, 3, 32, 32) * 2 - 1, torch.randn(2, 77, 256)
    with torch.no_grad():
        before, after = vae.encode(images).latent_dist, codec.encode(images).latent_dist
        close(after.mean[:, :4], before.mean)
        close(after.logvar[:, :4], before.logvar)
        assert (after.mean[:, 4:].std((0, 2, 3)) > 0.01).all() and (after.logvar[:, 4:] == -4).all()
        nothing, more = torch.zeros(2, 6, 4, 4), torch.randn(2, 6, 4, 4)
        nothing[:, :4] = more[:, :4] = before.mean
        close(codec.decode(nothing).sample, vae.decode(before.mean).sample)
        assert not torch.allclose(codec.decode(more).sample, codec.decode(nothing).sample, atol=1e-3)
        found = unet(more, torch.tensor([500, 20]), states).sample
        close(found[:, :4], net(before.mean, torch.tensor([500, 20]), states).sample)
        assert (found[:, 4:] == 0).all() and (found[:, :4] != 0).any()


@pytest.mark.slow
def test_fine_tuning_the_vae_widens_the_model_to_its_recipe(tmp_path):
    recipe = replace(RECIPES["cpu"], latent_channels=7, vae_images=40)
    runtime = Runtime(torch.device("cpu"), tmp_path / "work")
    run = finetune.FinetuneRun(MINI, recipe, runtime, minutes=1, steps=2)
    finetune.finetune("vae", run, tmp_path / "model")
    before, after = sums(MINI), sums(tmp_path / "model")
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    networks = {f"{part}/diffusion_pytorch_model.safetensors" for part in ("vae", "unet")}
    assert changed == networks | {"fast.safetensors"}  # it belongs to the U-Net of before
    with torch.no_grad():
        model = models.load(str(tmp_path / "model"), "cpu")
        found = latents.encode(model, to_tensor(np.asarray(Image.linear_gradient("L").convert("RGB"))[None]))
    assert found.shape == (1, 7, 32, 32) and model.unet.config.in_channels == 7
    assert found.std() < 5


def test_the_foreground_mask_covers_the_things():
    scene = Scene((Thing("cat", "red"), Thing("boat", "blue")), "left", "beach")
    where = foreground_mask(draw_with_instances(scene, 1)[1], 16)
    assert where[:, :8].any() and where[:, 8:].any() and not where[:, 7:9].all()
    assert 0.2 < where.mean() < 0.5 and not where[0].any()
    assert foreground_mask([], 16).all() and foreground_mask(draw_with_instances(GALAXY)[1], 16).all()


def test_loss_curves_join_runs_in_order(tmp_path):
    line = "09:00:00  unet: step {}, 9%, 50/s, loss {} | wrong caption {}\n"
    for name, steps in (("one", (1, 100, 50)), ("two", (1, 300))):
        (tmp_path / name).mkdir()
        for step in steps:
            with (tmp_path / name / "log.txt").open("a") as log:
                log.write(line.format(step, " ".join(["0.5"] * 8), " ".join(["+0.1"] * 8)))
            Image.new("RGB", (60, 20), "red").save(tmp_path / name / f"preview-{step:06}.png")
    history = loss_curves.read_logs([tmp_path / "one", tmp_path / "two"])
    assert history.steps == [1, 50, 100, 101, 400] and history.ends == [100, 400]
    assert loss_curves.choose_sheets(history) == [1, 50, 400]
    page = loss_curves.draw_curves(history)
    assert page.getpixel((5, page.height - 20)) == (255, 0, 0)


def test_time_budget_and_learning_rate():
    budget = TimeBudget(minutes=1, steps=10)
    budget.step = 5
    assert budget.progress == 0.5
    again = TimeBudget(minutes=1)
    again.resume({"seconds": 30.0, "step": 3})
    assert 0.5 <= again.progress < 0.6 and again.step == 3
    assert warm_then_decay(1.0, 999) == 0 and warm_then_decay(0.1, 999) == 1
    assert warm_then_decay(0.0, 0) < 0.01
