"""Prompt syntax of other programs: what surely is syntax is found, and ordinary punctuation is not."""

import time

import pytest

from diffusekit.foreign_syntax import find_syntax

SYNTAX = [
    ("a (red:1.3) cat", "weight (red:1.3)"),
    ("(cat: 1.2)", "weight (cat: 1.2)"),
    ("(cat:.5) (dog:-1)", "weight (cat:.5)"),
    ("a (big (red:1.2) cat:0.8)", "weight (red:1.2)"),
    ("((red)) cat", "emphasis ((red))"),
    ("(((red)))", "emphasis ((red))"),
    ("a [red] cat", "emphasis [red]"),
    ("((red)) [cat] {dog}", "emphasis ((red)), emphasis [cat], emphasis {dog}"),
    ("(masterpiece), (best quality), a cat", "emphasis (masterpiece)"),
    ("a cat, (best quality)", "emphasis (best quality)"),
    ("<lora:detail:0.8> a cat", "LoRA <lora:detail:0.8>"),
    ("<hypernet:x:1>", "LoRA <hypernet:x:1>"),
    ("<segment:face>", "tag <segment:face>"),
    ("a cat BREAK a dog", "chunk end BREAK"),
    ("a cat,\nBREAK\na dog", "chunk end BREAK"),
    ("a cat AND a dog", "conjunction AND"),
    ("a [cat:dog:0.5]", "scheduling [cat:dog:0.5]"),
    ("a [cat:10]", "scheduling [cat:10]"),
    ("a [cat::0.5]", "scheduling [cat::0.5]"),
    ("a [cat|dog]", "alternation [cat|dog]"),
    ("a {red|blue} cat", "variants {red|blue}"),
    ("a {2$$red|blue} cat", "variants {2$$red|blue}"),
    ("a __color__ cat", "wildcard __color__"),
    ("a __animals/cats__", "wildcard __animals/cats__"),
    (r"hatsune miku \(vocaloid\)", r"escape \("),
    ("embedding:easynegative, cat", "embedding embedding:easynegative"),
    ("cat++ dog", "weight cat++"),
    ("(a cat)1.3", "weight )1.3"),
    ("cat::2 dog::1", "weight ::2"),
    ("a cat --ar 16:9", "flag --ar"),
    ("a (red:1.3) ((big)) cat BREAK a dog", "weight (red:1.3), emphasis ((big)), chunk end BREAK"),
]
ORDINARY = [
    "a cat (orange)",
    "a cat (orange), sitting (on a mat)",
    "foo (bar (baz))",
    "a clock (10:30) at night (at 11:45)",
    "a wide (16:9) photo",
    "a verse (John 3:16) on a wall",
    "STOP AND GO",
    "a sign that says ROCK AND ROLL",
    "a PRISON BREAK poster",
    "rock and roll, break dance",
    "a C++ book, f/1.8 (50 mm)",
    "a cat :) (: smile :(",
    "(c) 2020 photo",
    "I <3 cats, a < b > c",
    "a well--known cat -- a dog",
    "snake_case_name, ____, __init",
    "a cat (no closing",
    '{"subject": "cat"}',
    "(word)",
    "a 【red】 cat",
    "",
]


@pytest.mark.parametrize("prompt,found", SYNTAX, ids=[row[0] for row in SYNTAX])
def test_syntax_is_found_and_named(prompt, found):
    assert ", ".join(map(str, find_syntax(prompt))) == found


@pytest.mark.parametrize("prompt", ORDINARY)
def test_ordinary_punctuation_is_not_syntax(prompt):
    assert find_syntax(prompt) == []


def test_a_learned_token_is_not_syntax():
    assert find_syntax("a [V] cat", [(2, 5)]) == []
    assert str(find_syntax("a ([V]:1.2) cat", [(3, 6)])[0]) == "weight ([V]:1.2)"


def test_a_long_example_is_shortened():
    assert str(find_syntax(f"({'red ' * 30}:1.3)")[0]) == "weight (red red red red red r…)"


@pytest.mark.parametrize("piece", ["(", "[a", "(a:", "<a:", "__a", "a+", "{|", "a AND ", "(a),", "[a]", "\\(", "((a)"])
def test_a_hostile_prompt_is_searched_quickly(piece):
    started = time.perf_counter()
    find_syntax((piece * 20_000)[:20_000])
    assert time.perf_counter() - started < 2
