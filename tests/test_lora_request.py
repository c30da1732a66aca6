"""NAME:0.8 and A1111's tags: strengths of both parts, and what cannot be read is refused by name."""

import pytest

from diffusekit.errors import UsageError
from diffusekit.lora_request import LoraRequest, parse_request, rename_tags
from diffusekit.prompt import parse


@pytest.mark.parametrize(
    "text,expected",
    [
        ("ink", LoraRequest("ink", 1, 1)),
        ("ink:0.8", LoraRequest("ink", 0.8, 0.8)),
        ("ink:-1.5", LoraRequest("ink", -1.5, -1.5)),
        ("ink:.5:1", LoraRequest("ink", 0.5, 1)),  # A1111's order: the text encoder's comes first
        ("ink:te=0.5:unet=0.25", LoraRequest("ink", 0.5, 0.25)),
        ("ink:0.7:unet=0.25", LoraRequest("ink", 0.7, 0.25)),
        ("2024:0.5", LoraRequest("2024", 0.5, 0.5)),
        ("a b/ink.safetensors:2", LoraRequest("a b/ink.safetensors", 2, 2)),
        (r"C:\loras\ink.safetensors:0.5", LoraRequest(r"C:\loras\ink.safetensors", 0.5, 0.5)),
    ],
)
def test_requests_are_names_and_strengths(text, expected):
    assert parse_request(text) == expected
    assert parse_request(str(expected)) == expected
    assert parse(f"a {expected.tag}", 4).loras == (expected,) or ":" in expected.name


@pytest.mark.parametrize(
    "text,said",
    [
        ("", "no name"),
        (":0.8", "no name"),
        ("ink:", "'' where a strength should be"),
        ("ink:strong", "'strong' where a strength"),
        ("ink:nan", "'nan' where a strength"),
        ("ink:1e9", "'1e9' where a strength"),
        ("ink:101", "the strength 101, expected at most 100"),
        ("ink:1:lbw=MIDD", "'lbw=MIDD', which is not supported"),
        ("ink:1:1:8", "a dynamic rank is not supported"),
        ("ink:dyn=8", "'dyn=8', which is not supported"),
    ],
)
def test_what_cannot_be_read_is_named(text, said):
    with pytest.raises(ValueError, match=said.replace("'", "['\"]")):
        parse_request(text)
    if text:
        with pytest.raises(UsageError) as error:
            parse(f"a cat <lora:{text}>", 4)
        assert said in error.value.message and "<lora:name:0.8>" in error.value.hint


def test_tags_are_taken_out_of_a_prompt():
    parsed = parse("a (red:1.2) <lora:ink:0.8> cat <lyco:more> AND a dog", 4)
    assert parsed.loras == (LoraRequest("ink", 0.8, 0.8), LoraRequest("more"))
    assert not parsed.notes and len(parsed.parts) == 2
    assert parse("a <lora:ink:0.8> cat <my_cat>", 4).parts[0].variants[0].plain_text == "a  cat <my_cat>"


def test_a_tag_has_no_effect_in_a_negative_prompt_and_none_in_plain_syntax():
    parsed = parse("bad <lora:ink:0.8>", 4, is_negative=True)
    assert not parsed.loras and parsed.parts[0].variants[0].plain_text == "bad "
    assert parsed.notes == ("<lora:ink:0.8> has no effect in a negative prompt; write it in the prompt",)
    assert not parse("a <lora:ink:0.8>", 4, syntax="plain").loras


def test_tags_get_other_names_and_keep_their_strengths():
    prompt = "a <lora:ink:0.5:0.25> cat <lora:other:1> <lora:x:y>"
    assert rename_tags(prompt, {"ink": "pen"}) == "a <lora:pen:0.5:0.25> cat <lora:other:1> <lora:x:y>"
