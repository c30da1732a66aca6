"""Recording cross-attention: the numbers of a computation by hand, the same image, and nothing left afterwards."""

import time
from statistics import median

import pytest
import torch

import diffusekit
from diffusekit import attention, models

PROMPT = "a red cat on the grass"


def run(record=True, take=True, **settings):
    """(latents after every step, maps of every step)"""
    found = {"steps": 3, "seed": 7, "device": "cpu"} | settings
    running = diffusekit.stream(PROMPT, **found)
    if not record:
        return [step.x_next for step in running], []
    latents, kept = [], []
    guided = running.settings.guidance_scale != 1
    with attention.record(running.model.unet, guided=guided) as maps:
        for step in running:
            latents.append(step.x_next)
            kept += [maps.maps()] if take else []
    return latents, kept


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mini", "sd1", "sd2"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("sampler", ["dpm++_2m", "euler_a"])
def test_latents_are_the_same_to_the_bit(families, model, guidance, sampler):
    settings = {
        "model": str(families.get(model, model)),
        "guidance_scale": guidance,
        "sampler": sampler,
        "images": 2,
        "batch": 2,
    }
    plain, _ = run(record=False, **settings)
    recorded, maps = run(**settings)
    assert len(plain) == len(recorded) == 3
    for a, b, found in zip(plain, recorded, maps, strict=True):
        assert torch.equal(a, b)
        assert found.shape[:2] == (2, 77) and found.dtype == torch.float32
        assert (found >= 0).all() and torch.allclose(found.sum(1), torch.ones_like(found[:, 0]), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("processor", ["sliced", "plain"])
def test_any_processor_keeps_its_image(processor):
    from diffusers.models.attention_processor import AttnProcessor

    unet = models.load("mini", "cpu").unet  # the one that `run` will use
    before = unet.attn_processors
    try:
        if processor == "sliced":
            unet.set_attention_slice(1)
        else:
            unet.set_attn_processor(AttnProcessor())
        chosen = unet.attn_processors
        plain, _ = run(record=False)
        recorded, maps = run()
        assert unet.attn_processors == chosen
    finally:
        unet.set_attn_processor(before)
    assert all(torch.equal(a, b) for a, b in zip(plain, recorded, strict=True))
    _, usual = run()
    assert torch.allclose(maps[0], usual[0], atol=1e-5)


def evaluated(unet, states=None, size=(16, 16), **more):
    torch.manual_seed(0)
    states = torch.randn(2, 77, unet.config.cross_attention_dim) if states is None else states
    unet(torch.randn(2, unet.config.in_channels, *size), 500, states, **more)


@pytest.mark.parametrize("model", ["mini", "sd1", "sd2"])
def test_probabilities_are_those_that_the_layer_uses(families, model):
    """diffusers' own slow processor computes them too: intercepted there, head by head."""
    from diffusers.models.attention_processor import AttnProcessor

    unet = models.load(str(families.get(model, model)), "cpu").unet
    name, layer = list(attention.layers(unet).items())[-1]
    before, own = layer.processor, []
    original = layer.get_attention_scores

    def intercept(*args):
        own.append(original(*args))
        return own[-1]

    layer.get_attention_scores = intercept
    layer.set_processor(AttnProcessor())
    try:
        with torch.no_grad(), attention.record(unet, layers=[name]) as maps:
            evaluated(unet)
            found = maps.per_layer()
    finally:
        layer.set_processor(before)
        del layer.get_attention_scores
    assert list(found) == [name] and len(own) == 1
    by_hand = own[0].unflatten(0, (2, layer.heads)).mean(1).transpose(1, 2)  # (B, T, N)
    assert torch.allclose(found[name].flatten(2), by_hand, atol=1e-6)
    assert found[name].std() > 0


def test_masked_tokens_are_not_looked_at(mini):
    mask = torch.ones(2, 77)
    mask[1, 40:] = 0
    with torch.no_grad(), attention.record(mini.unet) as maps:
        evaluated(mini.unet, encoder_attention_mask=mask)
        found = maps.maps()
    assert found[0, 40:].sum() > 0 and found[1, 40:].sum() == 0
    assert torch.allclose(found.sum(1), torch.ones(2, 8, 8), atol=1e-5)


def test_guided_is_the_half_with_the_prompt(mini):
    with torch.no_grad():
        states = torch.randn(2, 77, 256)
        with attention.record(mini.unet) as both, attention.record(mini.unet, guided=True) as half:
            evaluated(mini.unet, states)
            assert torch.allclose(half.maps(), both.maps()[1:], atol=1e-6)


def test_images_that_are_not_square(mini):
    with torch.no_grad(), attention.record(mini.unet) as maps:
        evaluated(mini.unet, size=(8, 24))
        shapes = {tuple(found.shape[2:]) for found in maps.per_layer().values()}
        assert shapes == {(4, 12), (2, 6)}
        assert maps.maps().shape == (2, 77, 4, 12)


def test_large_images_are_computed_in_chunks(mini, monkeypatch):
    with torch.no_grad(), attention.record(mini.unet) as maps:
        evaluated(mini.unet)
        whole = maps.maps()
        monkeypatch.setattr(attention, "CHUNK", 1)
        assert torch.allclose(maps.maps(), whole, atol=1e-6)


def test_only_the_layers_asked_for(mini):
    names = attention.localizing_layers(mini.unet)
    assert names and all(name.startswith("up_blocks.1.") for name in names)
    with torch.no_grad(), attention.record(mini.unet, layers=["mid_block"]) as maps:
        evaluated(mini.unet)
        assert [name.split(".")[0] for name in maps.per_layer()] == ["mid_block"]
    unknown = attention.record(mini.unet, layers=["nowhere"])
    with pytest.raises(AssertionError, match="nowhere"), unknown:
        pass


def test_a_model_without_finer_layers_points_with_all(families):
    unet = models.load(str(families["sd1"]), "cpu").unet
    assert attention.localizing_layers(unet) == list(attention.layers(unet))


def test_switched_off_and_on(mini):
    with torch.no_grad(), attention.record(mini.unet) as maps:
        maps.is_recording = False
        evaluated(mini.unet)
        with pytest.raises(AssertionError, match="while the recording was on"):
            maps.maps()
        maps.is_recording = True
        evaluated(mini.unet)
        assert maps.maps().shape == (2, 77, 8, 8)


def test_after_an_error_nothing_is_recorded_any_more(mini):
    processors = dict(mini.unet.attn_processors)
    with torch.no_grad(), pytest.raises(ZeroDivisionError), attention.record(mini.unet) as recorder:
        evaluated(mini.unet)
        assert len(recorder.per_layer()) == len(attention.layers(mini.unet))
        _ = 1 / 0
    with torch.no_grad():
        evaluated(mini.unet)
    with pytest.raises(AssertionError, match="while the recording was on"):
        recorder.maps()
    assert mini.unet.attn_processors == processors


@pytest.mark.slow
@pytest.mark.alone
def test_recording_costs_less_than_sixty_percent():
    """Median of steps, taking turns."""

    def seconds(record: bool) -> list[float]:
        running = diffusekit.stream(PROMPT, steps=12, seed=1, device="cpu")
        found, started = [], time.perf_counter()
        with attention.record(running.model.unet, layers=None if record else [], guided=True) as maps:
            for _ in running:
                if record:
                    maps.maps()
                found.append(time.perf_counter() - started)
                started = time.perf_counter()
        return found[1:]

    seconds(False)
    plain: list[float] = []
    recorded: list[float] = []
    for _ in range(4):
        plain += seconds(False)
        recorded += seconds(True) + seconds(True)
        plain += seconds(False)
    assert median(recorded) < 1.6 * median(plain), (median(recorded), median(plain))
