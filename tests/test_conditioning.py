"""Conditioning: rows, classifier-free guidance, the U-Net's arguments, and models with two text encoders."""

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from diffusekit import text
from diffusekit.conditioning import Conditioning
from diffusekit.embeddings import LearnedToken
from diffusekit.model_files import FAMILIES
from diffusekit.models import TextModel
from diffusekit.sampling import denoise


@pytest.fixture(scope="module")
def two_encoders(mini) -> TextModel:
    """Random text encoders of widths 32 and 48, as SDXL has of 768 and 1280."""
    (tokenizer,) = mini.tokenizers
    torch.manual_seed(0)
    encoders = [
        CLIPTextModelWithProjection(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=width,
                projection_dim=20,
                intermediate_size=37,
                num_hidden_layers=3,
                num_attention_heads=4,
                eos_token_id=tokenizer.eos_token_id,
            )
        ).eval()
        for width in (32, 48)
    ]
    where = ("tiny", mini.folder, "", mini.placement, FAMILIES["sdxl"])
    return TextModel(*where, (tokenizer, tokenizer), tuple(encoders))


@pytest.fixture(scope="module")
def sdxl_unet():
    torch.manual_seed(0)
    return UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        cross_attention_dim=80,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=20 + 6 * 8,
    ).eval()


def numbered(batch=2, **parts):
    return Conditioning(torch.arange(batch * 6.0).view(batch, 2, 3), **parts)


def test_concatenation_keeps_every_part():
    full = numbered(pooled=torch.ones(2, 4), size_ids=torch.full((2, 6), 64), mask=torch.ones(2, 2))
    both = full.concatenate(full)
    assert len(both) == 4 and torch.equal(both.states, torch.cat([full.states, full.states]))
    assert [t.shape[0] for t in (both.pooled, both.size_ids, both.mask)] == [4, 4, 4]
    with pytest.raises(AssertionError, match="same parts"):
        full.concatenate(numbered())


def test_rows_are_selected_and_repeated():
    cond = numbered(pooled=torch.tensor([[1.0], [2.0]]))
    chosen = cond[[1, 0, 1]]
    assert torch.equal(chosen.states, cond.states[[1, 0, 1]])
    assert chosen.pooled.flatten().tolist() == [2, 1, 2] and chosen.mask is None


def test_every_part_is_cast():
    cast = numbered(pooled=torch.ones(2, 4)).to(torch.device("cpu"), torch.float16)
    assert cast.dtype == cast.pooled.dtype == torch.float16


def test_a_unet_is_given_only_what_there_is():
    assert list(numbered(pooled=torch.ones(2, 4)).unet_kwargs()) == ["encoder_hidden_states"]
    assert "encoder_attention_mask" in numbered(mask=torch.ones(2, 2)).unet_kwargs()


def test_one_encoder_gives_its_last_states(mini):
    ids = torch.tensor([text.tokenize(mini, "a red cat").ids])
    (encoder,) = mini.text_encoders
    assert torch.equal(text.encode(mini, ["a red cat"]).states, encoder(ids).last_hidden_state)


def test_two_encoders_give_states_side_by_side(two_encoders):
    cond = text.encode(two_encoders, ["a red cat", "a dog"])
    ids = torch.tensor([text.tokenize(two_encoders, prompt).ids for prompt in ("a red cat", "a dog")])
    with torch.no_grad():
        outputs = [encoder(ids, output_hidden_states=True) for encoder in two_encoders.text_encoders]
    assert torch.equal(cond.states, torch.cat([output.hidden_states[-2] for output in outputs], dim=-1))
    assert cond.states.shape == (2, 77, 80) and torch.equal(cond.pooled, outputs[-1].text_embeds)


def test_a_learned_token_reaches_both_encoders(two_encoders):
    token = LearnedToken("cat", "S*", (torch.randn(2, 32), torch.randn(2, 48)), {})
    plain, learned = (text.encode(two_encoders, ["a S*"], tokens).states for tokens in ([], [token]))
    assert not torch.allclose(plain[..., :32], learned[..., :32])
    assert not torch.allclose(plain[..., 32:], learned[..., 32:])


def test_the_loop_passes_size_and_pooled_state_to_the_unet(two_encoders, sdxl_unet):
    """Two steps with guidance, beside diffusers' U-Net and scheduler called by hand."""
    size = torch.tensor([[64.0, 64, 0, 0, 64, 64]])
    cond, uncond = (text.encode(two_encoders, [prompt]) for prompt in ("a red cat", ""))
    cond, uncond = (Conditioning(c.states, c.pooled, size) for c in (cond, uncond))
    x = noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    ours, theirs = DDIMScheduler(), DDIMScheduler()
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(2)
    *_, last = denoise(sdxl_unet, ours, noise, cond, uncond=uncond, guidance_scale=4.0)
    with torch.no_grad():
        for timestep in theirs.timesteps:
            without, with_prompt = (
                sdxl_unet(
                    x, timestep, c.states, added_cond_kwargs={"text_embeds": c.pooled, "time_ids": c.size_ids}
                ).sample
                for c in (uncond, cond)
            )
            x = theirs.step(without + 4.0 * (with_prompt - without), timestep, x).prev_sample
    torch.testing.assert_close(last.x_next, x, rtol=1e-4, atol=1e-5)
