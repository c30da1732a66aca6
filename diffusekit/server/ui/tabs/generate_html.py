"""HTML of the Generate tab: the token counter, the empty stage, the words for completion."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape

from ..prompt_info import TokenCount

WELCOME = (
    '<figure class="stage welcome"><div><strong>Your images appear here.</strong>'
    "<span>Write a prompt and press <kbd>Ctrl</kbd> <kbd>Enter</kbd>; <kbd>Esc</kbd> stops. "
    "Without a prompt, an example is used.</span>"
    "<span>Drop an image anywhere on the page to restore its settings.</span></div></figure>"
)


def render_token_count(count: TokenCount) -> str:
    """How much of a prompt the model sees, and the learned tokens in it."""
    chips = "".join(f'<span class="chip">{escape(name)}</span>' for name in count.learned)
    learned = f"learned: {chips}" if chips else ""
    if not count.truncated:
        return f'<p class="meter"><span>{count.used} / {count.limit} tokens</span>{learned}</p>'
    lost = count.truncated if len(count.truncated) < 200 else f"{count.truncated[:200]}…"
    return (
        f'<p class="meter over" role="status"><span>{count.used} / {count.limit} tokens</span>'
        f"truncated: <del>{escape(lost)}</del>{learned}</p>"
    )


def render_word_list(words: Sequence[str]) -> str:
    """Words for the page's script to complete in prompts, as the attribute of an invisible element."""
    return f'<div data-words="{escape(json.dumps(list(words)))}"></div>'
