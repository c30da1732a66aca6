r"""A1111's prompt syntax: its published examples, and prompts that try to make a parser slow.

The examples are those of the docstrings in stable-diffusion-webui's `prompt.py`.
"""

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusekit.prompt import MAX_WEIGHT, parse, parse_schedule, parse_weights, split_parts


@pytest.mark.parametrize(
    "text,expected",
    [
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1.0),
                ("house", 1.5730000000000004),
                (" ", 1.1),
                ("on", 1.0),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641000000000006),
                (".", 1.1),
            ],
        ),
        ("", [("", 1.0)]),
        ("a ) b ] c", [("a ) b ] c", 1.0)]),
        ("[cat]", [("cat", 1 / 1.1)]),
        ("(cat: 1.5 )", [("cat", 1.5)]),
        ("(cat:-1)", [("cat", -1.0)]),
        ("(cat:.5) (dog:2.)", [("cat", 0.5), (" ", 1.0), ("dog", 2.0)]),
        ("at 16:9", [("at 16:9", 1.0)]),
        (r"C:\temp", [(r"C:\temp", 1.0)]),
        (r"\\(a)", [("\\", 1.0), ("a", 1.1)]),
        ("(a:0)", [("a", 0.0)]),
    ],
)
def test_weights(text, expected):
    (section,) = parse_weights(text)
    assert [(span.text, span.weight) for span in section] == expected


def test_sections():
    sections = parse_weights("a cat BREAK (a dog BREAK:1.5) BREAKFAST")
    assert [[(span.text, span.weight) for span in section] for section in sections] == [
        [("a cat ", 1.0)],
        [(" ", 1.0), ("a dog ", 1.5)],
        [(" BREAKFAST", 1.0)],
    ]


@pytest.mark.parametrize(
    "text,expected",
    [
        ("test", [(10, "test")]),
        ("a [b:3]", [(3, "a "), (10, "a b")]),
        ("a [b: 3]", [(3, "a "), (10, "a b")]),
        ("a [[[b]]:2]", [(2, "a "), (10, "a [[b]]")]),
        ("[(a:2):3]", [(3, ""), (10, "(a:2)")]),
        ("a [b : c : 1] d", [(1, "a b  d"), (10, "a  c  d")]),
        ("a[b:[c:d:2]:1]e", [(1, "abe"), (2, "ace"), (10, "ade")]),
        ("a [unbalanced", [(10, "a [unbalanced")]),
        ("a [b:.5] c", [(5, "a  c"), (10, "a b c")]),
        ("a [{b|d{:.5] c", [(5, "a  c"), (10, "a {b|d{ c")]),
        ("((a][:b:c [d:3]", [(3, "((a][:b:c "), (10, "((a][:b:c d")]),
        ("[a|(b:1.1)]", [(i, "a" if i % 2 else "(b:1.1)") for i in range(1, 11)]),
        ("[fe|]male", [(i, "female" if i % 2 else "male") for i in range(1, 11)]),
        (
            "[fe|||]male",
            [(1, "female"), (4, "male"), (5, "female"), (8, "male"), (9, "female"), (10, "male")],
        ),
        ("a [b:1.5] c", [(10, "a  c")]),
        ("a [b::4]", [(4, "a b"), (10, "a ")]),
        ("a [b:0]", [(10, "a b")]),
        ("a [b:-3]", [(10, "a b")]),
        ("a [b:99]", [(10, "a ")]),
        ("[the moon]", [(10, "[the moon]")]),
        ("[a:b:c:3]", [(10, "[a:b:c:3]")]),
        ("at 16:9", [(10, "at 16:9")]),
        (r"\[a\|b\]", [(10, r"\[a\|b\]")]),
    ],
)
def test_schedules(text, expected):
    """Neighbors with one text are joined, where A1111 lists every step."""
    assert parse_schedule(text, 10) == expected


def test_compositions():
    assert split_parts("a cat :1.2 AND a dog AND a penguin :2.2") == [
        ("a cat", 1.2),
        ("a dog", 1.0),
        ("a penguin", 2.2),
    ]
    assert split_parts("a cat, 16:9") == [("a cat, 16:9", 1.0)]
    assert split_parts("SAND AND LAND") == [("SAND", 1.0), ("LAND", 1.0)]
    assert len(parse("a AND b", 10, is_negative=True).parts) == 1


def test_a_prompt_without_syntax_is_plain():
    assert parse("a cat, on grass!", 10).parts == parse("a cat, on grass!", 10, syntax="plain").parts
    (part,) = parse("(a:1.5) [b|c] AND d", 10, syntax="plain").parts
    assert part.variants[0].plain_text == "(a:1.5) [b|c] AND d"
    assert parse("a (cat)", 10).parts[0].variants[0].plain_text is None


@pytest.mark.parametrize(
    "prompt,said",
    [
        ("a (cat", "'(' is not closed"),
        ("a [cat", "'[' is not closed"),
        ("(" * 100 + "a" + ")" * 100, "deeper than 32"),
        ("(cat:1.2.3)", "'1.2.3' is not a number"),
        ("a <hypernet:ink:0.8> cat", "<hypernet:ink> is not applied"),
    ],
)
def test_what_is_not_understood_is_said(prompt, said):
    (note,) = parse(prompt, 10).notes
    assert said in note


def test_networks_are_not_words():
    assert parse("a <lora:ink:0.8> cat <my_cat>", 10).parts[0].variants[0].plain_text == "a  cat <my_cat>"


HOSTILE = [
    "(" * 4096,
    ")" * 4096,
    "[" * 4096,
    "(" * 2048 + ")" * 2048,
    "(a" * 2000,
    "[a|" * 500,
    "[a:" * 1300,
    "[a|b]" * 800,
    "[[a|b]:1]" * 450,
    "[a:b:3]" * 580,
    ":" * 4096,
    ": " * 2048,
    "(a:" + "1" * 4090,
    "(a:" + "1." * 2040 + ")",
    "(a:1e999)(b:nan)(c:-inf)(d:" + "9" * 3000 + ")",
    "(a:999)" * 500,
    "(" * 30 + "a:999" + ":999)" * 30,
    "\\" * 4096,
    "a AND " * 680,
    "BREAK " * 680,
    "<lora:" * 680,
    "\u200d" * 4096,
    " " * 4096,
    "\ud800" * 100,
]


@pytest.mark.parametrize("prompt", HOSTILE, ids=lambda prompt: ascii(prompt[:10]))
def test_no_prompt_is_slow_or_gives_infinite_weights(prompt):
    best = math.inf
    for _ in range(3):
        begin = time.thread_time()
        parsed = parse(prompt, 20)
        best = min(best, time.thread_time() - begin)
    assert best < 0.05, best
    for part in parsed.parts:
        assert abs(part.weight) <= MAX_WEIGHT
        for variant in part.variants:
            assert all(abs(span.weight) <= MAX_WEIGHT for section in variant.sections for span in section)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab \\()[]:|.19-<>BREAKND\n", max_size=200), st.integers(1, 60))
def test_every_text_is_parsed(prompt, steps):
    parsed = parse(prompt, steps)
    for part in parsed.parts:
        ends = [variant.until for variant in part.variants]
        assert ends == sorted(set(ends)) and ends[-1] == steps and ends[0] >= 1
        assert all(math.isfinite(s.weight) for v in part.variants for section in v.sections for s in section)
