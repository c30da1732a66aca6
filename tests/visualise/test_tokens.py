"""How a model reads a text: tokens fill the encoder's positions, and the numbers are the model's own."""

import json
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusekit import text
from diffusekit.cli.main import run
from diffusekit.embeddings import LearnedToken, Vocabulary, combine, save
from diffusekit.errors import UsageError
from diffusekit.visualise import plots
from diffusekit.visualise.tokens import tokens
from tests.helpers import ROOT


@pytest.mark.slow
def test_pieces_are_those_the_model_reads(mini):
    found = tokens("a red snowflake on the grass").numbers
    ids = text.tokenize(mini, "a red snowflake on the grass").ids
    own = [piece["id"] for piece in found["pieces"]]
    assert own + [found["padding"]["id"]] * found["padding"]["count"] == ids
    assert found["positions"] == len(ids) == 77
    assert [p["place"] for p in found["pieces"]] == list(range(len(own)))
    assert found["used"] == len(own) - 2 and found["cut"] == ""
    assert [p["kind"] for p in found["pieces"]] == ["begin", *["word"] * (len(own) - 2), "end"]
    words = [w["text"] for w in found["words"]]
    assert words == ["a", "red", "snowflake", "on", "the", "grass"]
    snow = [p["piece"] for p in found["pieces"] if p["word"] == "snowflake"]
    assert len(snow) > 1 and "".join(snow) == "snowflake</w>"


def test_what_does_not_fit_is_reported():
    found = tokens("cat " * 80 + "owl").numbers
    assert found["used"] == 75 and found["padding"]["count"] == 0
    assert found["cut"].split() == ["cat"] * 5 + ["owl"]


def test_nearest_words_are_the_vocabularys_without_the_piece_itself(mini):
    found = tokens("a cat", count=4).numbers
    vocabulary = Vocabulary(mini)
    (near,) = vocabulary.nearest(vocabulary.vectors("cat"), 5)
    cat = found["pieces"][2]
    assert cat["nearest"] == near[1:] and near[0][0] == "cat"
    assert cat["norm"] == pytest.approx(float(vocabulary.vectors("cat").norm()))


def test_a_learned_token_is_one_word_of_several_rows(mini):
    vocabulary = Vocabulary(mini)
    rows = torch.cat([vocabulary.vectors("cat"), vocabulary.vectors("star")])
    save(LearnedToken("my_thing", "S*", (rows,), {}), Path("embeddings/my_thing.safetensors"))
    found = tokens("a photo of S*, red", arithmetic=["S* - star"]).numbers
    learned = [p for p in found["pieces"] if p["kind"] == "learned"]
    assert [(p["piece"], p["id"], p["row"]) for p in learned] == [("S*", None, 0), ("S*", None, 1)]
    assert [p["nearest"][0][0] for p in learned] == ["cat", "star"]
    assert {"text": "S*", "start": 4, "stop": 6} in found["words"]
    half = combine(vocabulary, "0.5 * cat - 0.5 * star")
    assert found["arithmetic"][0]["norm"] == pytest.approx(float(half.norm()))


def test_the_map_is_that_of_the_states(mini):
    prompt = "a red cat on the grass"
    found = tokens(prompt).numbers["map"]
    own = [p for p in found["points"] if not p["instead_of"]]
    assert [p["text"] for p in own] == ["a", "red", "cat", "on", "the", "grass", "end"]
    changed = [p for p in found["points"] if p["instead_of"]]
    assert {"text": "cats", "instead_of": "cat"}.items() <= changed[0].items()
    states = [text.encode(mini, [prompt]).states[0, 1:8]]
    for p in changed:
        place = prompt.split().index(p["instead_of"])
        other = " ".join(p["text"] if w == p["instead_of"] else w for w in prompt.split())
        states.append(text.encode(mini, [other]).states[0, 1 + place][None])
    seen, shares = plots.project_to_plane(torch.cat(states).float())
    assert found["explained_variance"] == pytest.approx(shares)
    given = torch.tensor([[p["x"], p["y"]] for p in found["points"]], dtype=torch.float64)
    assert given == pytest.approx(seen, abs=1e-4)


@pytest.mark.slow
def test_a_word_that_occurs_twice_or_is_learned_is_not_replaced(mini):
    found = tokens("a cat and a cat").numbers["map"]["points"]
    assert not [p for p in found if p["instead_of"] in ("a", "cat")]


def test_a_large_vocabulary_is_compared_by_its_table(mini, monkeypatch):
    module = sys.modules["diffusekit.visualise.tokens"]
    monkeypatch.setattr(module, "SMALL_VOCABULARY", 10)
    monkeypatch.setattr(module, "MIN_SIMILARITY", 0.0)
    changed = [p for p in tokens("a cat").numbers["map"]["points"] if p["instead_of"]]
    vocabulary = Vocabulary(mini)
    words = [w for w in vocabulary.words if w.isalpha() and len(w) > 2 and w != "cat"]
    rows = torch.cat([vocabulary.vectors(w) for w in words])
    near = torch.cosine_similarity(rows, vocabulary.vectors("cat")).argsort(descending=True)
    assert [p["text"] for p in changed] == [words[i] for i in near[:2]]


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["", "cat", "猫 $x_1$ \x1b[31m", "and a dog " * 30, "and a dog " * 25 + "$x^2^2$"])
def test_any_text_can_be_drawn(prompt, tmp_path):
    figure = tokens(prompt, arithmetic=["cats - cat + dog"])
    with Image.open(figure.save(tmp_path / "t.png")) as drawn:
        assert drawn.width > 1000
    drawing = figure.save(tmp_path / "t.svg").read_text()
    ElementTree.fromstring(drawing)
    json.loads(figure.save(tmp_path / "t.json").read_text())


def test_word_arithmetic_is_that_of_embeddings_combine(mini, capsys):
    found = tokens("a", arithmetic=["cats - cat + dog"], count=6).numbers["arithmetic"][0]
    assert run(["embeddings", "combine", "cats - cat + dog", "--count", "6", "--json"]) == 0
    assert [list(pair) for pair in found["nearest"]] == json.loads(capsys.readouterr().out)["nearest"]


def test_bad_input(capsys):
    with pytest.raises(UsageError):
        tokens("a cat", arithmetic=["cat + + dog"])
    with pytest.raises(UsageError):
        tokens("a cat", count=0)
    with pytest.raises(UsageError):
        tokens("x" * 1_000_000)
    assert run(["visualise", "tokens", "x" * 1_000_000]) == 2
    said = capsys.readouterr().err
    assert len(said) < 400 and "hint: " in said
    assert run(["visualise", "tokens", "a cat", "--arithmetic", "cat (dog)"]) == 2
    assert run(["visualise", "tokens", "a cat", "-o", "t.webp"]) == 2


def test_the_command_prints_a_table_json_or_a_path(capsys):
    words = ["visualise", "tokens", "a [red] snowflake"]
    assert run(words) == 0
    table = capsys.readouterr().out
    assert "snowflake" not in table and "[" in table and "5" in table  # in pieces, and no markup
    assert "of 75 positions are used" in table and "padding" in table
    assert run([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prompt"] == "a [red] snowflake"
    assert run([*words, "-o", "t.svg"]) == 0
    assert capsys.readouterr().out == "t.svg\n" and Path("t.svg").exists()
    assert not Path("outputs").exists()


def test_a_token_of_the_repository_is_found_by_its_name(capsys):
    Path("embeddings").mkdir()
    shutil.copy(ROOT / "embeddings" / "my_robot.safetensors", "embeddings")
    assert run(["visualise", "tokens", "a photo of <my_robot>"]) == 0
    assert "row 0" in capsys.readouterr().out
