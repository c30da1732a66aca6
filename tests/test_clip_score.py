"""Similarity by CLIP: an image is most similar to itself and to its own prompt."""

import pytest
import torch

from diffusekit import clip_score, images, models
from diffusekit.inversion.evaluation import EDIT_PROMPTS, remove_token
from tests.helpers import ROOT


@pytest.fixture(scope="module")
def scorer(mini):
    found = clip_score.load_scorer(mini)
    assert found is not None
    return found


def drawn(*scenes) -> torch.Tensor:
    from training.mini.world.scenes import Scene, Thing, draw

    drawings = [draw(Scene((Thing(what, color),), background=place), 3) for what, color, place in scenes]
    return torch.stack([images.to_tensor(p) for p in drawings])


def test_embeddings_have_length_one_and_do_not_depend_on_the_size(scorer):
    drawings = drawn(("cat", "red", "grass"), ("boat", "blue", "beach"))
    found = scorer.embed_images(drawings)
    assert found.shape[0] == 2 and torch.allclose(found.norm(dim=1), torch.ones(2), atol=1e-5)
    larger = torch.nn.functional.interpolate(drawings, scale_factor=2, mode="bicubic")
    assert (scorer.embed_images(larger) * found).sum(1).min() > 0.9


def test_images_are_most_like_their_own_captions(scorer):
    scenes = [
        ("cat", "red", "grass"),
        ("boat", "blue", "beach"),
        ("house", "yellow", "snow"),
        ("car", "green", "street"),
    ]
    places = {
        "grass": "on the grass",
        "beach": "on the beach",
        "snow": "in the snow",
        "street": "on a street",
    }
    texts = scorer.embed_texts([f"a {color} {what} {places[place]}" for what, color, place in scenes])
    similarity = scorer.embed_images(drawn(*scenes)) @ texts.T
    assert similarity.argmax(1).tolist() == [0, 1, 2, 3]


def test_pairwise_leaves_out_the_image_itself():
    rows = torch.eye(3)
    assert clip_score.mean_pairwise_similarity(rows) == pytest.approx(0)
    assert clip_score.mean_pairwise_similarity(rows[:1]) == 1
    assert clip_score.mean_pairwise_similarity(torch.ones(2, 4) / 2) == pytest.approx(1)


def test_a_model_without_clip_and_without_a_cached_clip_has_no_scorer(families):
    model = models.load(str(families["sd1"]), "cpu")
    assert clip_score.load_scorer(model) is None
    assert clip_score.load_scorer(model, "openai/clip-vit-large-patch14") is None


def test_a_clip_from_a_folder_scores_real_families(families, tmp_path):
    """CLIPModel as the hub's CLIPs are laid out; its answers are transformers' own."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(models.MINI / "tokenizer")
    size = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CLIPConfig(
        text_config=size | ids | {"vocab_size": len(tokenizer)},
        vision_config=size | {"image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    torch.manual_seed(0)
    clip = CLIPModel(config).eval()
    clip.save_pretrained(tmp_path / "clip")
    tokenizer.save_pretrained(tmp_path / "clip")
    scorer = clip_score.load_scorer(models.load(str(families["sd1"]), "cpu"), str(tmp_path / "clip"))
    assert scorer is not None and scorer.name == "clip"
    words = tokenizer(["a red cat"], return_tensors="pt")
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    mean, std = (torch.tensor(v)[:, None, None] for v in (clip_score.MEAN, clip_score.STD))
    with torch.no_grad():
        out = clip(**words, pixel_values=((pixels + 1) / 2 - mean) / std)
    assert torch.allclose(scorer.embed_texts(["a red cat"]), out.text_embeds, atol=1e-5)
    assert torch.allclose(scorer.embed_images(pixels), out.image_embeds, atol=1e-5)


def test_edit_prompts_without_their_token_are_sentences():
    assert [remove_token(e) for e in EDIT_PROMPTS["object"]] == [
        "an app icon",
        "an oil painting",
        "a picture in the snow",
        "a picture on the beach",
    ]
    assert remove_token(EDIT_PROMPTS["style"][0]) == "a cat"


def test_the_towers_come_with_the_wheel():
    assert (ROOT / "diffusekit/mini/text_projection.safetensors").exists()
