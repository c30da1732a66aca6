"""Names and tokens that are safe on every file system and in a prompt."""

import pytest

from diffusekit import embeddings
from diffusekit.embeddings import LearnedToken, name_error, safe_name, token_error
from diffusekit.errors import FileRefused
from tests.helpers.foreign_files import rows

BAD_NAMES = [
    "",
    ".",
    "..",
    "...",
    "../../x",
    "..\\x",
    "/abs",
    "//host/x",
    "a/b",
    "a\\b",
    "C:x",
    "C:\\x",
    "x:y",
    "\\\\h\\s",
    "CON",
    "con",
    "nul.txt",
    "AUX",
    "com1",
    "LPT9.x",
    "x.",
    "x ",
    " x",
    ".x",
    "-x",
    "--yes",
    "a\0b",
    "a\nb",
    "a\rb",
    "a\tb",
    "a\x1bb",
    "a\x7fb",
    "a\u202eb",
    "a\u200bb",
    "a\ufeffb",
    "a\u2028b",
    "x" * 300,
    "x" * 101,
    "猫" * 99,
    "🐱",
    "a🐱",
    "<script>",
    "a<b",
    "a>b",
    "a|b",
    "a?b",
    "a*b",
    'a"b',
    "%2e%2e%2f",
    "a%00",
    "．．／",
    "cafe\u0301",
    "a b",
    "a;b",
    "$(x)",
    "`x`",
    "a&b",
    "a'b",
    "~",
    "~root",
    "a..b",
    "\ud800",
    "x/../y",
    "file://x",
]
GOOD_NAMES = ["my_cat", "x", "v1.5-style", "café", "猫", "Cat_2", "console", "x" * 100, "_x"]


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda n: ascii(n)[:24])
def test_unsafe_names(name, tmp_path):
    assert name_error(name)
    made = safe_name(name)
    assert not name_error(made) and "/" not in made
    (tmp_path / f"{made}.safetensors").write_bytes(b"")
    with pytest.raises(FileRefused):
        embeddings.check(LearnedToken(name, "S*", (rows(),)))


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_safe_names_stay_as_they_are(name):
    assert not name_error(name)
    assert safe_name(name) == name.strip("_")


def test_any_text_becomes_a_safe_name():
    for text, name in (
        ("My Cat!", "My_Cat"),
        ("", "token"),
        ("<cat-toy>", "cat-toy"),
        ("S*", "S"),
        ("CON", "token_CON"),
        ("../../etc", "etc"),
        ("．．／x", "x"),
        ("***", "token"),
        ("a  b", "a_b"),
        ("cafe\u0301", "café"),
    ):
        assert safe_name(text) == name


def test_invalid_and_valid_tokens():
    for bad in ("", " ", "my cat", "a\n", "\0", "*", "...", "x" * 101, "a\u202eb"):
        assert token_error(bad)
    for good in ("S*", "<cat-toy>", "猫", "bad_hands", "sks"):
        assert not token_error(good)
