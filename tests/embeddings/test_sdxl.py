"""A token of SDXL in a pipeline of diffusers, loaded as people load it: the text states are ours."""

import pytest
import torch
from safetensors.torch import load_file

from diffusekit import embeddings, models, text
from diffusekit.embeddings import LearnedToken
from tests.helpers.random_models import correct_end

PROMPT = "a painting of <toy> in the snow"


@pytest.fixture
def token(random_models) -> LearnedToken:
    generator = torch.Generator().manual_seed(1)
    vectors = tuple(0.02 * torch.randn(2, width, generator=generator) for width in (32, 48))
    return LearnedToken("toy", "<toy>", vectors, {"base_model": "sdxl"})


def load_pair(pipeline, path):
    """One file with clip_l and clip_g: native, kohya's, A1111's, and what is on Civitai."""
    state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    for key, end in (("clip_l", ""), ("clip_g", "_2")):
        own = {
            "text_encoder": getattr(pipeline, f"text_encoder{end}"),
            "tokenizer": getattr(pipeline, f"tokenizer{end}"),
        }
        pipeline.load_textual_inversion(state[key], token="<toy>", **own)


def load_files(pipeline, path):
    """Two files, as diffusers' own training script writes them."""
    pipeline.load_textual_inversion(str(path))
    second = path.with_stem(f"{path.stem}_2")
    own = {"text_encoder": pipeline.text_encoder_2, "tokenizer": pipeline.tokenizer_2}
    pipeline.load_textual_inversion(str(second), **own)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "load"), [("native", load_pair), ("kohya", load_pair), ("a1111", load_pair), ("diffusers", load_files)]
)
def test_diffusers_reads_the_token_and_gets_our_text_states(random_models, token, tmp_path, kind, load):
    from diffusers import StableDiffusionXLPipeline

    if kind == "native":
        path = embeddings.save(token, tmp_path / "toy.safetensors")
    else:
        path = embeddings.export_token(token, tmp_path, kind)[0]
    pipeline = StableDiffusionXLPipeline.from_pretrained(random_models["sdxl"], local_files_only=True)
    load(pipeline, path)
    correct_end(pipeline)
    with torch.no_grad():
        states, _, pooled, _ = pipeline.encode_prompt(PROMPT, do_classifier_free_guidance=False)
    model = models.load(str(random_models["sdxl"]), "cpu", "float32")
    ours, plain = (text.encode(model, [PROMPT], tokens) for tokens in ([token], []))
    assert ours.pooled is not None
    assert torch.allclose(ours.states, states, atol=1e-6) and torch.allclose(ours.pooled, pooled, atol=1e-6)
    assert not torch.allclose(ours.states, plain.states, atol=1e-3)
    again = embeddings.import_token(path)
    assert again.token == "<toy>" or kind == "a1111"  # its file has the name alone
    assert all(torch.equal(a, b) for a, b in zip(again.vectors, token.vectors, strict=True))
