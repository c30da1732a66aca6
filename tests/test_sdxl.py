"""Stable Diffusion XL: two text encoders, the pooled prompt, sizes, and an empty negative prompt."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from diffusekit import models, prompt_encoder, schedule, stream, text
from diffusekit.cli import main
from diffusekit.conditioning import Conditioning
from diffusekit.embeddings import LearnedToken
from diffusekit.model_files import read_folder
from diffusekit.prompt import parse
from tests.helpers import parity

LONG = ", ".join(f"a red cat on the green grass {i}" for i in range(12)) + " in (the:1.3) [snow]"


@pytest.fixture(scope="module")
def pair(random_models):
    return parity.load_pair(random_models["sdxl"])


def encode(model, prompt, negative="", tokens=(), syntax="a1111"):
    parsed = parse(prompt, 4, syntax=syntax), parse(negative, 4, syntax=syntax, is_negative=True)
    cond, uncond = prompt_encoder.encode(model, [parsed[0]], [parsed[1]], tokens)
    assert uncond is not None
    return cond.at(0), uncond.at(0)


def a1111_states(pipe, windows):
    """The states and pooled state of windows of (id, weight), computed as A1111 does it, with diffusers' networks."""
    parts, pooled = [], None
    for encoder, padding in ((pipe.text_encoder, 49407), (pipe.text_encoder_2, 0)):
        rows = []
        for window in windows:
            ids, weights = zip(*window, strict=True)
            filler = 75 - len(ids)
            with torch.no_grad():
                output = encoder(torch.tensor([[49406, *ids, 49407, *[padding] * filler]]), output_hidden_states=True)
            states = output.hidden_states[-2]
            factors = torch.tensor([1.0, *weights, *[1.0] * (filler + 1)])
            weighted = states * factors[:, None]
            rows.append(weighted * states.mean() / weighted.mean())
            if encoder is pipe.text_encoder_2 and pooled is None:
                pooled = output.text_embeds
        parts.append(torch.cat(rows, 1))
    return torch.cat(parts, -1), pooled


def test_an_image_is_made_from_the_command_line(pair, random_models, tmp_path):
    path = tmp_path / "cat.png"
    assert main.run(["generate", "a cat", "--model", str(random_models["sdxl"]), "--steps", "2", "-o", str(path)]) == 0
    image = np.asarray(Image.open(path))
    assert image.shape == (64, 64, 3) and image.std() > 1


@pytest.mark.parametrize("guidance,negative", [(5.0, "a dog"), (5.0, ""), (1.0, "")])
@pytest.mark.parametrize("syntax", ["plain", "a1111"])
def test_latents_are_those_of_diffusers(pair, guidance, negative, syntax):
    options = {"guidance": guidance, "negative": negative, "prompt_syntax": syntax}
    assert parity.difference(pair, "euler", **options, steps=2) < 1e-4


def test_a_long_prompt_with_weights_is_that_of_a1111(pair):
    model, pipe = pair.model, pair.pipes["text"]
    (tokenizer, _) = model.tokenizers
    plain, weighted = LONG.split(" in ")
    words = [(i, 1.0) for i in tokenizer(plain, add_special_tokens=False).input_ids]
    words += [(i, 1.0) for i in tokenizer("in", add_special_tokens=False).input_ids]
    words += [(i, 1.3) for i in tokenizer("the", add_special_tokens=False).input_ids]
    words += [(i, 1 / 1.1) for i in tokenizer("snow", add_special_tokens=False).input_ids]
    comma = tokenizer.convert_tokens_to_ids(",</w>")
    cut = max(i for i in range(75) if words[i][0] == comma) + 1
    states, pooled = a1111_states(pipe, [words[:cut], words[cut:]])
    dog = [(i, 1.0) for i in tokenizer("a dog", add_special_tokens=False).input_ids]
    dog_states, dog_pooled = a1111_states(pipe, [dog])
    empty_states, _ = a1111_states(pipe, [[(49407, 1.0)]])  # padding of the first encoder is the end token
    cond, uncond = encode(model, LONG, "a dog")
    torch.testing.assert_close(cond.states, states, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cond.pooled, pooled, rtol=1e-4, atol=1e-5)
    assert uncond.states.shape == cond.states.shape and weighted
    torch.testing.assert_close(uncond.states[:, :77], dog_states, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(uncond.states[:, 77:, :32], empty_states[..., :32], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(uncond.pooled, dog_pooled, rtol=1e-4, atol=1e-5)
    options: Any = {"steps": 2, "guidance_scale": 5.0, "seed": 5, "sampler": "euler"}
    *_, last = stream(LONG, model=model, negative_prompt="a dog", prompt_syntax="a1111", **options)
    pipe.scheduler = schedule.make_scheduler("euler", model.scheduler_config)
    theirs = pipe(
        prompt_embeds=states,
        pooled_prompt_embeds=pooled,
        negative_prompt_embeds=uncond.states,
        negative_pooled_prompt_embeds=dog_pooled,
        num_inference_steps=2,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
    ).images
    assert (last.x_next - theirs).abs().max() < 1e-4


@pytest.mark.slow
def test_a_learned_token_is_that_of_diffusers(random_models, tmp_path):
    """A file with clip_l and clip_g, of two vectors, loaded by both.

    The configurations on the hub give a wrong end token. transformers then takes the pooled state from the position
    with the largest id: in diffusers that is the learned token's, which has new ids, and here it is the end.
    """
    torch.manual_seed(1)
    vectors = {"clip_l": torch.randn(2, 32), "clip_g": torch.randn(2, 48)}
    save_file(vectors, tmp_path / "blob.safetensors")
    pair = parity.load_pair(random_models["sdxl"])
    pipe = pair.pipes["text"]
    for key, network, tokenizer in (
        ("clip_l", pipe.text_encoder, pipe.tokenizer),
        ("clip_g", pipe.text_encoder_2, pipe.tokenizer_2),
    ):
        pipe.load_textual_inversion(vectors[key], token="<blob>", text_encoder=network, tokenizer=tokenizer)
    for module in pipe.text_encoder_2.modules():
        if hasattr(module, "eos_token_id"):
            module.eos_token_id = 49407
    token = LearnedToken("blob", "<blob>", tuple(vectors.values()), {})
    options: Any = {"steps": 2, "guidance_scale": 5.0, "seed": 5, "sampler": "euler", "negative_prompt": "a dog"}
    found = []
    for word, tokens in (("blob", [str(tmp_path / "blob.safetensors")]), ("<blob>", [token])):
        for syntax in ("plain", "a1111"):
            prompt = f"a red {word} on the grass"
            *_, last = stream(prompt, model=pair.model, tokens=tokens, prompt_syntax=syntax, **options)
            found.append(last.x_next)
    pipe.scheduler = schedule.make_scheduler("euler", pair.model.scheduler_config)
    theirs = pipe(
        "a red <blob> on the grass",
        negative_prompt="a dog",
        num_inference_steps=2,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
    ).images
    assert max((each - theirs).abs().max() for each in found) < 1e-4


def test_an_empty_negative_prompt_is_zeros_where_the_model_was_trained_so(pair, random_models, tmp_path):
    folder = random_models.copy("sdxl", tmp_path / "xl")
    index = json.loads((folder / "model_index.json").read_text())
    for says, is_zero in ((True, True), (False, False), (None, True)):
        index["force_zeros_for_empty_prompt"] = says
        kept = {key: value for key, value in index.items() if value is not None}
        (folder / "model_index.json").write_text(json.dumps(kept))
        zeroes = read_folder("xl", folder, weights=False).zeroes_empty_prompt
        assert zeroes is is_zero
        cond, uncond = encode(dataclasses.replace(pair.model, zeroes_empty_prompt=zeroes), "a cat")
        assert cond.states.any() and cond.pooled.any()
        assert (not uncond.states.any() and not uncond.pooled.any()) is is_zero
    assert pair.model.zeroes_empty_prompt and encode(pair.model, "a cat", "dog")[1].states.any()


def test_sizes_are_height_before_width_and_stay_exact():
    cond = Conditioning(torch.zeros(2, 1, 4), torch.zeros(2, 4))
    sized = cond.with_size(1048, 1001, original=(2049, 1003), crop=(3, 5)).to(torch.bfloat16)
    assert sized.size_ids is not None and sized.size_ids.dtype == torch.float32 and sized.states.dtype == torch.bfloat16
    assert sized.size_ids.tolist() == [[1003, 2049, 5, 3, 1001, 1048]] * 2
    assert list(sized.unet_kwargs()["added_cond_kwargs"]) == ["text_embeds", "time_ids"]


def test_images_of_different_sizes_differ_by_more_than_their_noise(pair):
    """The U-Net is told the size: the same latents with another size give another prediction."""
    cond = text.encode(pair.model, ["a cat"])
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        small, large = (pair.model.unet(x, 500, **cond.with_size(s, s).unet_kwargs()).sample for s in (64, 1024))
    assert not torch.allclose(small, large)


@pytest.mark.slow
def test_the_vae_is_in_full_precision_where_half_would_overflow(random_models):
    model = models.load(str(random_models["sdxl"]), "cpu", "bfloat16")
    assert (model.unet.dtype, model.vae.dtype) == (torch.bfloat16, torch.float32)
    assert {encoder.dtype for encoder in model.text_encoders} == {torch.bfloat16}
    *_, last = stream("a cat", model=model, steps=2, seed=1)
    assert last.x_next.isfinite().all()
