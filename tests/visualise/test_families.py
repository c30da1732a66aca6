"""Every visualisation of models other than `mini`: two text encoders, v-prediction, zero terminal SNR."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusekit import LearnedToken, load_model, metadata
from diffusekit.cli.main import run
from diffusekit.visualise.attention_maps import record_attention_maps
from diffusekit.visualise.lesson import lesson
from diffusekit.visualise.tokens import tokens

OPTIONS = ["--steps", "3", "--seed", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sdxl", "sd2-zsnr", "lcm"])
def test_every_verb_draws(random_models, capsys, kind):
    model = ["--model", str(random_models[kind])]
    assert run(["generate", "a red cat", *model, *OPTIONS, "-o", "cat.png"]) == 0
    for verb in (
        ["denoise", "a red cat", *model, *OPTIONS],
        ["attention", "a red cat on the grass", *model, *OPTIONS],
        ["tokens", "a red cat", *model],
        ["compare", "a red cat", *model, *OPTIONS, "--sampler", "ddim", "--sampler", "euler"],
        ["compare", "a red cat", *model, *OPTIONS, "--drop", "red"],
        ["noise", "cat.png", *model],
    ):
        assert run(["visualise", *verb, "-o", f"{verb[0]}.png", "--overwrite"]) == 0, capsys.readouterr().err
        Image.open(f"{verb[0]}.png").load()
    assert run(["visualise", "samplers", *model, "--no-path", "-o", "samplers.svg"]) == 0
    assert run(["visualise", "lesson", "a red cat", "a dog", *model, *OPTIONS, "-o", "page.html"]) == 0
    capsys.readouterr()
    assert run(["bench", "visualise", *model, "--steps", "2", "--images", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plain"] > 0


@pytest.mark.slow
def test_an_image_is_made_again_from_its_record(random_models):
    options = ["--guidance-rescale", "0.7", "--negative", "a dog", "--width", "128", "--height", "64"]
    for kind in ("sdxl", "sd2-zsnr"):
        model = str(random_models[kind])
        assert run(["generate", "a red cat", "--model", model, *OPTIONS, *options, "-o", f"{kind}.png"]) == 0
        assert run(["again", f"{kind}.png", "--model", model, "-o", f"{kind}-again.png"]) == 0
        first, second = (metadata.read(Path(f"{kind}{end}.png")) for end in ("", "-again"))
        assert first.record is not None and first.record.settings.guidance_rescale == 0.7
        assert first.parameters["CFG rescale"] == "0.7"
        assert first.record == second.record
        assert Image.open(f"{kind}.png").tobytes() == Image.open(f"{kind}-again.png").tobytes()


def test_attention_maps_of_two_encoders_have_one_position_per_word(random_models):
    """Both encoders read the same tokens, so that their states at a position belong to one word."""
    model = load_model(str(random_models["sdxl"]))
    learned = LearnedToken("blob", "<blob>", tuple(v.detach() for v in vectors(model)), {})
    _, maps = record_attention_maps("a red <blob> cat", model=model, tokens=[learned], steps=2, seed=1)
    assert maps.words == ("start", "a", "red", "<blob>", "cat", "end")
    torch.testing.assert_close(maps.maps.float().sum(1), torch.ones(2, *maps.maps.shape[2:]), rtol=0.01, atol=0.01)
    assert (maps.maps > 0).all()


def test_the_page_and_the_words_tell_of_both_encoders(random_models):
    model = load_model(str(random_models["sdxl"]))
    numbers = tokens("a red cat", model=model).numbers
    assert numbers["text_encoders"] == 2 and [w["text"] for w in numbers["words"]] == ["a", "red", "cat"]
    lesson("a red cat", model=model, steps=2, seed=1).save("page.html")
    page = Path("page.html").read_text()
    assert "<b>two text encoders</b>" in page and "one pooled state" in page and "77 × 80" in page
    assert "all that the U-Net ever learns" not in page


def vectors(model):
    return [encoder.get_input_embeddings().weight[1000:1002] for encoder in model.text_encoders]
