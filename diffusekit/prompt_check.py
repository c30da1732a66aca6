"""What a model does not read in prompts: text beyond its context, other programs' syntax, names without a token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .display import quote
from .embeddings import LearnedToken, find_mentions, find_omissions
from .foreign_syntax import Construct, find_syntax
from .models import TextModel
from .prompt import parse
from .text import find_truncated, has_every_word

_MAX_TEXT = 200  # characters of a prompt in a sentence


def check_prompts(
    model: TextModel,
    prompts: Sequence[str],
    tokens: Sequence[LearnedToken] = (),
    *,
    negative_prompt: str = "",
    folder: Path | str | None = None,
    syntax: str = "plain",
) -> list[str]:
    """Say in sentences what of the prompts, and of the learned tokens given with them, has no effect.

    `folder` is where other tokens lie, for hints. Without it no files are looked at. `syntax` is how the prompts
    are read.
    """
    sentences = []
    for prompt in dict.fromkeys((*prompts, negative_prompt)):
        mentions = find_mentions(prompt, tokens)
        if found := find_syntax(prompt, [(start, end) for start, end, _ in mentions], read=syntax):
            subject = "the negative prompt" if prompt == negative_prompt else "the prompt"
            constructs = ", ".join(map(str, found))
            hint = "; give it with `lora`, or set `prompt_syntax` to a1111" if _has_lora(found) else ""
            sentences.append(f"{subject} has syntax of other programs, which is read as plain text: {constructs}{hint}")
        is_negative = prompt == negative_prompt and prompt not in prompts
        parsed = parse(prompt, 1, syntax=syntax, is_negative=is_negative)
        sentences += [f"in the prompt, {note}" for note in parsed.notes]
        sentences += [
            f"{quote(prompt[start:end])} in the prompt is the learned token of {token.path or token.name}, "
            "not the word; rename the token to use the word"
            for start, end, token in mentions
            if prompt[start:end].isalpha() and has_every_word(model, prompt[start:end])
        ]
    every = [*dict.fromkeys(prompts), negative_prompt]
    sentences += find_omissions(every, tokens, folder)
    sentences += [
        f"the prompt is too long for this model; it does not see: {quote(truncated, _MAX_TEXT)}"
        for truncated in find_truncated(model, every if syntax == "plain" else (), tokens)
    ]
    return list(dict.fromkeys(sentences))


def _has_lora(found: Sequence[Construct]) -> bool:
    return any(each.example.startswith(("<lora:", "<lyco:")) for each in found)
