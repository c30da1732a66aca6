"""The setting `attention`: every kind gives equal latents, and xformers is used only where it works."""

import sys
from types import SimpleNamespace

import pytest
import torch

import diffusekit
from diffusekit import attention, latents, models
from diffusekit.cli.main import run
from diffusekit.errors import UsageError


@pytest.fixture
def xformers(monkeypatch) -> list[torch.Size]:
    """An xformers that computes attention by its definition; the list holds the shapes of queries."""
    from diffusers.models import attention_processor

    shapes = []

    def attend(query, key, value, attn_bias=None, op=None, scale=None):
        shapes.append(query.shape)
        scores = query.float() @ key.float().transpose(-1, -2) * (scale or query.shape[-1] ** -0.5)
        return ((scores if attn_bias is None else scores + attn_bias).softmax(-1) @ value.float()).to(query.dtype)

    ops = SimpleNamespace(memory_efficient_attention=attend)
    package = SimpleNamespace(ops=ops)
    monkeypatch.setitem(sys.modules, "xformers", package)
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    monkeypatch.setattr(attention_processor, "xformers", package, raising=False)
    return shapes


def draw(model):
    steps = [step.x_next for step in diffusekit.stream("a red cat", model=model, steps=3, seed=1, guidance_scale=3)]
    return steps[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mini", "sd1"])
def test_every_kind_of_attention_gives_equal_latents_and_images(random_models, xformers, name):
    where = "mini" if name == "mini" else str(random_models[name])
    expected = draw(models.load(where, "cpu"))
    rounding = 1e-4 * expected.abs().max().item()  # the kernels add in another order, and random weights amplify that
    for kind in ("math", "xformers"):
        model = models.load(where, "cpu", attention=kind)
        assert model.attention == kind
        assert torch.allclose(draw(model), expected, rtol=0, atol=rounding), kind
        whole = latents.decode(models.load(where, "cpu"), expected)
        assert torch.allclose(latents.decode(model, expected), whole, atol=1e-4), kind
        assert (len(xformers) > 1) == (kind == "xformers")


def test_maps_are_recorded_with_every_kind_of_attention():
    maps = []
    for kind in ("sdpa", "math"):
        running = diffusekit.stream("a red cat", model=models.load("mini", "cpu", attention=kind), steps=2, seed=1)
        with attention.record(running.model.unet, guided=True) as recorder:
            list(running)
            maps.append(recorder.maps())
    assert torch.allclose(*maps, atol=1e-4)


def test_xformers_that_is_not_installed_is_refused_before_loading(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "xformers", None)
    assert run(["generate", "a cat", "--attention", "xformers", "--device", "cpu", "--memory", "7GB"]) == 2
    error = capsys.readouterr().err
    assert "--attention xformers is not installed" in error and "hint: set --attention to sdpa" in error
    with pytest.raises(UsageError, match="`attention` is decided when a model is loaded"):
        diffusekit.stream("a cat", model=models.load("mini", "cpu"), attention="math")


def test_the_record_has_the_attention_and_no_budget(tmp_path):
    made = diffusekit.generate("a cat", steps=1, seed=0, attention="math", memory="2GB", device="cpu")[0]
    assert made.record.settings.attention == "math" and made.record.settings.memory is None
