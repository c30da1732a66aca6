"""Tokens and names that have no effect are named, and so are files that have to be imported first."""

from pathlib import Path

import pytest

from diffusekit import embeddings
from diffusekit.embeddings import LearnedToken, find_omissions, list_omitted, tokens_in_prompts
from diffusekit.errors import UsageError
from tests.helpers.foreign_files import rows

FOLDER = Path("embeddings")


def put(name: str, token: str = "", **metadata: str) -> LearnedToken:
    given = LearnedToken(name, token or f"<{name}>", (rows(1, 256),), metadata)
    return embeddings.read(embeddings.save(given, FOLDER / f"{name}.safetensors"))


def omissions(*prompts: str, given=()) -> list[str]:
    tokens = tokens_in_prompts(prompts, given)
    return find_omissions(prompts, tokens, FOLDER)


def test_a_given_token_that_no_prompt_names_has_no_effect():
    put("my_cat")
    expected = "the learned token my_cat has no effect, because no prompt names it; write <my_cat>"
    assert omissions("a photo of a cat", given=["my_cat"]) == [expected]
    assert omissions("a photo of a cat", "my_cat", given=["my_cat"]) == []
    assert omissions("a photo of a cat") == []


def test_a_name_in_brackets_without_a_token_is_plain_text():
    assert omissions("a <my_cat>") == ["there is no learned token '<my_cat>', so it is read as plain text"]
    put("my_cat")
    assert omissions("a <my_cta>") == [
        "there is no learned token '<my_cta>', so it is read as plain text; did you mean <my_cat>?"
    ]
    assert omissions("a <my_cat>", "5 < 6 > 4, <3, <lora:x:1>, </b>") == []


def test_names_with_capitals_are_explained():
    put("easy")
    assert omissions("EASY, a cat") == [
        "'EASY' in the prompt is plain text; the learned token is written easy or <easy>"
    ]
    assert len(omissions("<Easy>, a cat")) == 1
    assert omissions("easy, a cat") == omissions("uneasy") == []


def test_a_name_that_is_a_word_of_the_model_keeps_its_meaning():
    put("cat", token="<my-cat>", word="cat")
    assert omissions("a cat, a Cat") == []


def test_a_file_name_with_spaces_is_matched_in_brackets_and_explained_outside():
    put("plain")
    FOLDER.joinpath("plain.safetensors").rename(FOLDER / "my embed with space.safetensors")
    (token,) = tokens_in_prompts(["a <my embed with space>"])
    assert token.name == "my_embed_with_space"
    assert omissions("a <my embed with space>", "a my_embed_with_space") == []
    (sentence,) = omissions("a My embed with space")
    assert sentence.endswith("the learned token is written my_embed_with_space or <my_embed_with_space>")
    assert embeddings.load_token("my embed with space").name == "my_embed_with_space"


@pytest.mark.parametrize("ending", [".pt", ".bin", ".PT", ".pth"])
def test_a_pickle_in_the_folder_has_to_be_imported(ending):
    FOLDER.mkdir()
    path = FOLDER / f"a1111pt{ending}"
    path.write_bytes(b"PK")
    command = f"diffusekit embeddings import {path}"
    assert list(map(str, list_omitted())) == [f"{path} has to be imported first: {command}"]
    for prompt in ("a photo of a1111pt", "a photo of A1111PT", "a photo of <a1111pt>"):
        (sentence,) = omissions(prompt)
        assert "is plain text" in sentence and command in sentence
    assert omissions("a photo of a1111pts") == []
    with pytest.raises(UsageError) as refused:
        embeddings.load_token("a1111pt")
    assert str(refused.value) == f"{path} has to be imported first" and refused.value.hint == command


def test_an_image_in_the_folder_is_omitted_only_if_it_has_an_embedding(tmp_path):
    from PIL import Image

    FOLDER.mkdir()
    Image.new("RGB", (8, 8)).save(FOLDER / "preview.png")
    assert list_omitted() == []


def test_an_ending_in_capitals_is_a_token():
    put("loud")
    FOLDER.joinpath("loud.safetensors").rename(FOLDER / "loud.SAFETENSORS")
    assert [token.name for token in tokens_in_prompts(["a loud cat"])] == ["loud"]


def test_near_names_do_not_depend_on_capitals():
    put("easy")
    with pytest.raises(UsageError) as refused:
        embeddings.load_token("EASYY")
    assert refused.value.hint == "did you mean easy?"
