"""Finding tokens: by name, by path, and by what a prompt says."""

import sys
import time
from pathlib import Path

import pytest
import torch

from diffusekit import embeddings
from diffusekit.embeddings import LearnedToken, files, find_mentions, lookup, tokens_in_prompts
from diffusekit.errors import FileRefused, UsageError
from tests.helpers import foreign_files
from tests.helpers.foreign_files import rows


def put(name: str, token: str = "", folder: str = "embeddings") -> LearnedToken:
    given = LearnedToken(name, token or f"<{name}>", (rows(1, 256),))
    return embeddings.read(embeddings.save(given, f"{folder}/{name}.safetensors"))


def names(tokens) -> list[str]:
    return [token.name for token in tokens]


def spelled(prompt: str, *tokens: LearnedToken) -> list[tuple[str, str]]:
    return [(prompt[a:b], token.name) for a, b, token in find_mentions(prompt, tokens)]


CAT = LearnedToken("my_cat", "S*", (rows(1, 4),))
DOG = LearnedToken("dog", "S**", (rows(1, 4),))
BAD = LearnedToken("bad", "bad", (rows(1, 4),))
HANDS = LearnedToken("bad_hands", "<bad-hands>", (rows(1, 4),))


@pytest.mark.parametrize(
    "prompt,found",
    [
        ("a photo of S*", ["S*"]),
        ("two S* fishing", ["S*"]),
        ("S*'s hat", ["S*"]),
        ("S*S*", ["S*", "S*"]),
        ("my_catS*my_cat S*my_cat", ["my_cat", "S*", "my_cat"]),
        ("S* S*, S*", ["S*", "S*", "S*"]),
        ("catS*", []),
        ("s*", []),
        ("S **", []),
        ("S**", ["S**"]),
        ("S***", ["S**"]),
        ("my_cat and <my_cat>", ["my_cat", "<my_cat>"]),
        ("my_cats, My_cat, xmy_cat, my_cat2, my_cat_", []),
        ("(my_cat:1.2), [my_cat]", ["my_cat", "my_cat"]),
        ("<my_cat", ["my_cat"]),
        ("bad_hands", ["bad_hands"]),
        ("bad, bad_hands, badly, <bad>", ["bad", "bad_hands", "<bad>"]),
        ("<bad-hands>", ["<bad-hands>"]),
        ("bad-hands", ["bad"]),
        ("a dog's dogs", ["dog"]),
        ("", []),
    ],
)
def test_spellings(prompt, found):
    places = find_mentions(prompt, [CAT, DOG, BAD, HANDS])
    assert [prompt[a:b] for a, b, _ in places] == found
    assert all(prompt[a:b] in token.spellings for a, b, token in places)


def test_spellings_do_not_overlap_and_no_token_means_none():
    places = find_mentions("S*S**S* <my_cat>my_cat", [CAT, DOG])
    assert [(a, b) for a, b, _ in places] == [(0, 2), (2, 5), (5, 7), (8, 16), (16, 22)]
    assert find_mentions("S*", []) == []


def test_the_first_of_several_wins_a_spelling():
    twin = LearnedToken("twin", "S*", (rows(1, 4),))
    assert spelled("S* <my_cat>", twin, CAT) == [("S*", "twin"), ("<my_cat>", "my_cat")]


def test_a_hostile_prompt_is_searched_quickly():
    started = time.perf_counter()
    find_mentions("S" * 20_000 + "<" * 20_000 + "bad_" * 5_000, [CAT, DOG, BAD, HANDS])
    assert time.perf_counter() - started < 1


def test_tokens_are_listed_and_loaded(tmp_path):
    assert embeddings.list_files() == []
    put("b")
    put("a")
    (tmp_path / "embeddings" / "deep").mkdir()
    put("c", folder="embeddings/deep")
    (tmp_path / "embeddings" / "x.pt").write_bytes(b"")
    (tmp_path / "embeddings" / ".hidden.safetensors").write_bytes(b"")
    assert [p.name for p in embeddings.list_files()] == ["a.safetensors", "b.safetensors"]
    assert embeddings.load_token("a").name == "a" and embeddings.load_token("<a>").name == "a"
    assert embeddings.load_token("embeddings/deep/c.safetensors").name == "c"
    assert embeddings.load_token(tmp_path / "embeddings" / "b.safetensors").name == "b"
    assert embeddings.load_token("b.safetensors").name == "b"


def test_links_out_of_the_folder_are_skipped(tmp_path):
    outside = put("outside", folder="elsewhere").path
    assert outside is not None
    put("inside")
    (tmp_path / "embeddings" / "out.safetensors").symlink_to(outside.resolve())
    (tmp_path / "embeddings" / "in.safetensors").symlink_to("inside.safetensors")
    (tmp_path / "embeddings" / "loop.safetensors").symlink_to("loop.safetensors")
    found = [p.stem for p in embeddings.list_files()]
    assert found == ["in", "inside"]


def test_near_matches_are_named():
    put("my_cat")
    for asked in ("my_cta", "My_cat"):
        with pytest.raises(UsageError, match="no learned token") as caught:
            embeddings.load_token(asked)
        assert caught.value.hint == "did you mean my_cat?"
    for asked in ("zebra", "no/such.safetensors", "..", "x" * 5000, "a\0b", "/\0", ""):
        with pytest.raises(UsageError):
            embeddings.load_token(asked)


def test_two_files_of_one_name(tmp_path):
    foreign_files.tensors(put("x").path.with_name("A B.safetensors"), {"emb_params": rows()})  # type: ignore[union-attr]
    assert embeddings.load_token("A_B").token == "A_B"
    foreign_files.tensors(tmp_path / "embeddings" / "A+B.safetensors", {"emb_params": rows()})
    with pytest.raises(UsageError, match="is the name of"):
        embeddings.load_token("A_B")


# --- what prompts ask for ------------------------------------------------------------------------


def test_given_and_mentioned_tokens_are_loaded():
    for name, token in (("cat", "S*"), ("dog", "D*"), ("owl", ""), ("bat", "")):
        put(name, token)
    assert names(tokens_in_prompts(["a photo of S*"])) == ["cat"]
    assert names(tokens_in_prompts(["<dog>", "an owl, an owl", "nothing"])) == ["dog", "owl"]
    assert names(tokens_in_prompts(["nothing"])) == []
    assert names(tokens_in_prompts(["a cat"], ["bat", "embeddings/bat.safetensors", "bat"])) == [
        "bat",
        "cat",
    ]
    with pytest.raises(UsageError, match="no learned token"):
        tokens_in_prompts(["x"], ["nobody"])


def test_a_name_that_is_a_word_keeps_its_meaning():
    token = LearnedToken("dog", "S*", (rows(1, 256),), {"word": "dog"})
    assert token.spellings == ("S*", "<dog>") and spelled("a dog, <dog>", token) == [("<dog>", "dog")]
    path = embeddings.save(token, "embeddings/dog.safetensors")
    assert tokens_in_prompts(["a photo of a dog"]) == []
    assert names(tokens_in_prompts(["a photo of <dog>"])) == names(tokens_in_prompts(["S*"])) == ["dog"]
    path.rename("embeddings/my_dog.safetensors")
    assert names(tokens_in_prompts(["my_dog"])) == ["my_dog"]


def test_only_the_header_of_files_that_no_prompt_names_is_read(tmp_path, monkeypatch):
    put("cat", "S*")
    put("dog", "D*")
    whole, headers = [], []
    monkeypatch.setattr(lookup, "read", lambda path: whole.append(path.stem) or files.read(path))
    monkeypatch.setattr(lookup, "header_of", lambda path: headers.append(path.stem) or files.header_of(path))
    tokens_in_prompts(["S*"])
    assert whole == ["cat"] and sorted(headers) == ["cat", "dog"]


@pytest.mark.skipif(sys.platform != "linux", reason="counts the bytes that this process read")
def test_a_header_is_read_without_the_vectors(tmp_path):
    path = embeddings.save(LearnedToken("big", "S*", (torch.randn(75, 8192),)), tmp_path / "big.safetensors")

    def count() -> int:
        return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])

    before = count()
    assert files.read_header(path).token == "S*"
    assert count() - before < 10_000 < path.stat().st_size


def test_a_damaged_file_matters_only_when_mentioned(tmp_path):
    put("cat", "S*")
    (tmp_path / "embeddings" / "dog.safetensors").write_bytes(b"rubbish")
    assert names(tokens_in_prompts(["S* and a house"])) == ["cat"]
    with pytest.raises(FileRefused, match="dog"):
        tokens_in_prompts(["a dog"])


def test_a_token_of_several_files():
    put("dog", "S*")
    put("my_cat", "S*")
    with pytest.raises(UsageError) as caught:
        tokens_in_prompts(["a photo of S*"])
    assert caught.value.message == "S* is the token of dog and my_cat"
    assert caught.value.hint == "set `embedding` to dog, or write <dog> in the prompt"
    assert names(tokens_in_prompts(["S*"], ["my_cat"])) == ["my_cat"]
    assert names(tokens_in_prompts(["<my_cat> and <dog>"])) == ["dog", "my_cat"]
    both = tokens_in_prompts(["S* and <dog>"], ["my_cat"])
    assert names(both) == ["my_cat", "dog"]
    assert [t.name for *_, t in find_mentions("S* and <dog>", both)] == ["my_cat", "dog"]
    with pytest.raises(UsageError, match="S\\* is the token of my_cat and dog") as caught:
        tokens_in_prompts(["S*"], ["my_cat", "dog"])
    assert caught.value.hint == "write <my_cat> in the prompt"
    assert names(tokens_in_prompts(["<dog>"], ["my_cat", "dog"])) == ["my_cat", "dog"]


def test_a_given_file_comes_before_one_of_its_name_in_the_folder():
    put("cat")
    elsewhere = put("cat", "C*", folder="elsewhere")
    (found,) = tokens_in_prompts(["a <cat>"], [str(elsewhere.path)])
    assert found.token == "C*"


def test_another_folder():
    put("cat", "S*", folder="mine")
    assert names(tokens_in_prompts(["S*"], folder="mine")) == ["cat"] and tokens_in_prompts(["S*"]) == []
    assert lookup.load_token("cat", "mine").name == "cat"


def test_tokens_in_the_folders_of_other_programs_are_found_by_their_name_in_brackets(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSEKIT_MODELS", str(tmp_path / "webui"))
    (tmp_path / "webui" / "models" / "Stable-diffusion").mkdir(parents=True)
    put("bad_hands", folder=str(tmp_path / "webui" / "embeddings"))
    put("cat", folder=str(tmp_path / "webui" / "embeddings"))
    assert names(tokens_in_prompts(["a cat, <bad_hands>"])) == ["bad_hands"]
    assert embeddings.load_token("bad_hands").name == "bad_hands"
    mine = put("bad_hands")
    assert [token.path for token in tokens_in_prompts(["<bad_hands>"])] == [mine.path]
    (tmp_path / "webui" / "embeddings" / "old.pt").write_bytes(b"\x80")
    with pytest.raises(UsageError, match="has to be imported first"):
        embeddings.load_token("old")
