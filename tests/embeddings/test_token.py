"""A learned token alone and for a model: what is checked, and what a message says."""

import pytest
import torch

from diffusekit import embeddings
from diffusekit.embeddings import LearnedToken
from diffusekit.errors import FileRefused
from tests.helpers.foreign_files import rows


def test_invalid_tokens_are_refused():
    for bad, says in (
        (LearnedToken("..", "S*", (rows(),)), "name '..'"),
        (LearnedToken("a/b", "S*", (rows(),)), "characters other than"),
        (LearnedToken("x", "", (rows(),)), "is empty"),
        (LearnedToken("x", "S*", ()), "for 0 text encoders"),
        (LearnedToken("x", "S*", (rows(),) * 3), "for 3 text encoders"),
        (LearnedToken("x", "S*", (rows()[0],)), r"shape \[768\]"),
    ):
        with pytest.raises(FileRefused, match=says):
            embeddings.check(bad)
    embeddings.check(LearnedToken("x", "S*", (rows(75),)))


def test_a_token_for_another_model_names_both_widths(mini):
    embeddings.check_compatible(LearnedToken("x", "S*", (rows(1, 256),)), mini)
    with pytest.raises(FileRefused, match=r"for Stable Diffusion 1\.x \(width 768\), but mini has width 256"):
        embeddings.check_compatible(LearnedToken("x", "S*", (rows(),)), mini)
    with pytest.raises(FileRefused, match=r"for SDXL \(width 768 and 1280\), but mini has width 256") as caught:
        facts = {"base_model": "owner/sdxl"}
        embeddings.check_compatible(LearnedToken("x", "S*", (rows(), rows(2, 1280)), facts), mini)
    assert "owner/sdxl" in caught.value.hint


def test_the_family_follows_from_the_width():
    assert LearnedToken("x", "S*", (rows(1, 256),)).family == "mini"
    assert LearnedToken("x", "S*", (rows(1, 768), rows(1, 1280))).family == "SDXL"
    assert LearnedToken("x", "S*", (rows(1, 512),)).family == "width 512"


def test_start_vectors_are_stored_as_text():
    vectors = (rows(2, 768), rows(2, 1280, seed=1))
    again = embeddings.decode_vectors(embeddings.encode_vectors(vectors), vectors)
    assert all(torch.equal(a, b) for a, b in zip(vectors, again, strict=True))
    for bad in ("", "word", embeddings.encode_vectors(vectors[:1]), embeddings.encode_vectors((rows(1) * torch.nan,))):
        with pytest.raises(FileRefused):
            embeddings.decode_vectors(bad, vectors if "," in bad else (rows(1), rows(1)))
    with pytest.raises(FileRefused, match="NaN or infinite"):
        embeddings.decode_vectors(embeddings.encode_vectors((rows(1) * torch.nan,)), (rows(1),))
