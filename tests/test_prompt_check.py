"""A run warns of everything in its prompts that has no effect."""

import diffusekit
from diffusekit import embeddings
from diffusekit.embeddings import LearnedToken
from tests.helpers.foreign_files import rows


def warnings(prompt, mini, **settings) -> list[str]:
    return diffusekit.stream(prompt, model=mini, steps=1, **settings).warnings


def test_ordinary_prompts_have_no_warnings(mini):
    assert warnings(["a cat (orange)", "a red house"], mini, negative_prompt="blurry, low quality") == []


def test_syntax_of_other_programs_is_named_for_each_prompt(mini):
    found = warnings(["a (red:1.3) cat", "a cat"], mini, negative_prompt="((bad)), [ugly]")
    assert found == [
        "the prompt has syntax of other programs, which is read as plain text: weight (red:1.3)",
        "the negative prompt has syntax of other programs, which is read as plain text: "
        "emphasis ((bad)), emphasis [ugly]",
    ]


def test_a_token_that_takes_a_plain_word_is_named(mini):
    path = embeddings.save(LearnedToken("cat", "<x>", (rows(1, 256),)), "embeddings/cat.safetensors")
    taken = f"'cat' in the prompt is the learned token of {path}, not the word; rename the token to use the word"
    assert warnings("a red cat", mini) == [taken]
    assert warnings("a red <cat>", mini) == warnings("a red dog", mini) == []


def test_a_prompt_that_is_too_long_is_quoted_where_it_is_cut(mini):
    assert warnings("cat " * 75 + "galaxy star", mini) == [
        "the prompt is too long for this model; it does not see: 'galaxy star'"
    ]
    assert warnings("cat " * 75, mini) == []


def test_prompts_without_effect_at_extreme_guidance_scales(mini):
    assert warnings("a cat", mini, guidance_scale=0) == []
    assert warnings("a cat", mini, guidance_scale=1, negative_prompt="(x:1.2)") == [
        "`negative_prompt` has no effect without guidance (`guidance_scale` 1)"
    ]


def test_tokens_that_no_prompt_names_are_warned_about(mini):
    embeddings.save(LearnedToken("my_cat", "S*", (rows(1, 256),)), "embeddings/my_cat.safetensors")
    assert warnings("a cat", mini, embedding=("my_cat",)) == [
        "the learned token my_cat has no effect, because no prompt names it; write <my_cat>"
    ]
    assert warnings("a S*", mini, embedding=("my_cat",)) == []
    assert len(warnings("a <my_dog>", mini)) == 1
