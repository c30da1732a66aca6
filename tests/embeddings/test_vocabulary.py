"""Words near a vector, sums of words, and the way between start and end."""

import pytest
import torch

from diffusekit.embeddings import LearnedToken, Vocabulary, combine, interpolate
from diffusekit.errors import UsageError
from tests.helpers.foreign_files import rows


@pytest.fixture(scope="module")
def words(mini) -> Vocabulary:
    return Vocabulary(mini)


def table(mini) -> torch.Tensor:
    return mini.text_encoders[0].get_input_embeddings().weight


def test_it_has_whole_words_only(words, mini):
    assert {"cat", "galaxy", "red"} <= set(words.words)
    assert not any(w.endswith("</w>") or w.startswith("<|") or not w.isprintable() for w in words.words)
    assert len(words.words) < len(mini.tokenizers[0].get_vocab())
    assert words.width == 256


def test_typical_norm_and_percentile(words, mini):
    norms = table(mini).norm(dim=1)
    assert words.typical_norm == pytest.approx(float(norms.median()))
    low, middle, high = words.norm_percentile(torch.tensor([0.0, words.typical_norm, 1e9]))
    assert low == 0 and high == 100 and middle == pytest.approx(50, abs=0.2)


def test_vectors_of_words_are_their_rows(words, mini):
    ids = mini.tokenizers[0]("red cat", add_special_tokens=False).input_ids
    assert torch.equal(words.vectors("red cat"), table(mini)[ids]) and len(ids) == 2
    found = words.vectors("cat")
    found.zero_()
    assert words.vectors("cat").any()  # a copy: the model's table stays as it is
    for nothing in ("", "  ", "<|endoftext|>"):
        with pytest.raises(UsageError, match="has no token"):
            words.vectors(nothing)


def test_a_word_is_nearest_to_itself(words):
    both = torch.cat([words.vectors("cat"), words.vectors("galaxy") * 7])
    first, second = words.nearest(both, 3)
    assert first[0] == ("cat", pytest.approx(1, abs=1e-5)) and len(first) == 3
    assert second[0] == ("galaxy", pytest.approx(1, abs=1e-5))
    assert [c for _, c in first] == sorted((c for _, c in first), reverse=True)
    (without,) = words.nearest(words.vectors("cat"), 3, exclude=["Cat"])
    assert "cat" not in [w for w, _ in without] and [w for w, _ in without][:2] == [w for w, _ in first][1:]


def test_nearest_is_the_cosine(words):
    vector = rows(1, 256)
    ((word, cosine),) = words.nearest(vector, 1)[0]
    wanted = torch.cosine_similarity(vector, words.vectors(word)).item()
    assert cosine == pytest.approx(wanted, abs=1e-5)


# --- sums ----------------------------------------------------------------------------------------

TOY = LearnedToken("my_cat", "S*", (rows(3, 256),))


def mean(words, text):
    return words.vectors(text).mean(dim=0)


@pytest.mark.parametrize(
    "expression,parts",
    [
        ("cat", [(1, "cat")]),
        ("cat - red + blue", [(1, "cat"), (-1, "red"), (1, "blue")]),
        ("cat+dog", [(1, "cat"), (1, "dog")]),
        ("0.5 * cat + dog", [(0.5, "cat"), (1, "dog")]),
        ("cat - 2*dog", [(1, "cat"), (-2, "dog")]),
        (".5*cat", [(0.5, "cat")]),
        ("- cat + dog", [(-1, "cat"), (1, "dog")]),
        ("-cat + dog", [(-1, "cat"), (1, "dog")]),
        ("+ cat", [(1, "cat")]),
        ("oil painting - cat", [(1, "oil painting"), (-1, "cat")]),
        ("blue-green", [(1, "blue-green")]),
    ],
)
def test_sums(words, expression, parts):
    wanted = sum(factor * mean(words, text) for factor, text in parts)
    assert torch.allclose(combine(words, expression), wanted, atol=1e-5)


@pytest.mark.parametrize("spelling", ["S*", "<my_cat>", "my_cat"])
def test_learned_tokens_in_sums(words, spelling):
    learned = TOY.vectors[0].mean(dim=0)
    for expression, wanted in (
        (spelling, learned),
        (f"{spelling} - cat + dog", learned - mean(words, "cat") + mean(words, "dog")),
        (f"cat - 0.5 * {spelling}", mean(words, "cat") - 0.5 * learned),
        (f"cat+{spelling}", mean(words, "cat") + learned),
    ):
        assert torch.allclose(combine(words, expression, [TOY]), wanted, atol=1e-5), expression


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "   ",
        "+",
        "-",
        "cat +",
        "cat -",
        "cat + + dog",
        "cat + - dog",
        "cat +- dog",
        "* cat",
        "cat * dog",
        "cat * 2",
        "2 *",
        "2 * 3 * cat",
        "cat 2 * dog",
        "cat dog *",
        "S* cat",
        "cat S*",
        "S* S*",
        "(cat)",
        "cat / 2",
        "cat = dog",
        "cat - cat",
        "0 * cat",
        "9" * 400 + " * cat",
        "a\0b",
        "a \udcff",
        "2 * - cat",
    ],
)
def test_invalid_sums(words, expression):
    with pytest.raises(UsageError) as caught:
        combine(words, expression, [TOY])
    assert caught.value.hint


def test_interpolate():
    token = LearnedToken("x", "S*", (rows(2, 8),), {"scores": "{}", "init": "cat"}, sha256="a")
    start = rows(2, 8, seed=1)
    assert torch.equal(interpolate(token, start, 0).vectors[0], start)
    end = interpolate(token, start, 1)
    assert torch.equal(end.vectors[0], token.vectors[0])
    assert end.metadata == {"init": "cat", "interpolated": "1"} and end.sha256 == ""
    half = interpolate(token, start, 0.5).vectors[0]
    assert torch.allclose(half, (start + token.vectors[0]) / 2)
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="from 0 to 1"):
            interpolate(token, start, bad)


def test_interpolate_with_two_text_encoders():
    token = LearnedToken("x", "S*", (rows(2, 8), rows(2, 6)))
    starts = (rows(2, 8, seed=1), rows(2, 6, seed=1))
    found = interpolate(token, starts, 0.25)
    for vector, start, learned in zip(found.vectors, starts, token.vectors, strict=True):
        assert torch.allclose(vector, 0.75 * start + 0.25 * learned)
