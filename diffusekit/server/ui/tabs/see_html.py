"""What the See tab says: the frame that shows a lesson page apart from this one, and the walk's parts.

Knows no components.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

WELCOME = (
    '<div class="empty-run"><strong>See how a picture comes out of noise.</strong>'
    "<p>Write a prompt, or press “See how” beside a picture in Generate or Gallery. "
    "You get every step under a slider, a map of where the model looked for each word, and all the numbers; "
    "and a walk through it in five parts, for those who see it for the first time.</p></div>"
)


@dataclass(frozen=True)
class WalkStep:
    """One part of the walk: what it is about, and the exhibit beside it."""

    figure: str
    title: str
    question: str
    text: str


WALK = (
    WalkStep(
        "noise",
        "Noise",
        "How was the model taught?",
        "Pictures were covered with more and more noise, as here from left to right, and the model had to say "
        "each time what noise was added. Whoever can tell the noise from the picture can take it away. "
        "To make a new picture, one starts at the right end, with nothing but noise.",
    ),
    WalkStep(
        "film",
        "Denoising",
        "What happens step by step?",
        "At every step the model guesses what the finished picture looks like: that guess is what you see. "
        "A little of the noise is then taken away in its direction, and it guesses again. "
        "First come colors and places, then shapes, last the fine lines.",
    ),
    WalkStep(
        "steps",
        "Inside",
        "What does it work on?",
        "Not on pixels, but on latents: a small grid of numbers that stands for the picture. "
        "Each column is one step. Below are the latents, the noise that was found in them, and what the prompt "
        "changed, compared with a guess without any prompt: that difference, made larger, is guidance.",
    ),
    WalkStep(
        "words",
        "Words",
        "How does it know what I wrote?",
        "Each word of the prompt became a row of numbers, and every place in the picture looks at all words. "
        "Where it is bright, that place looked at that word. A learned token is nothing else: "
        "one such row, found by training instead of by a dictionary.",
    ),
    WalkStep(
        "decode",
        "Decoding",
        "How do numbers become a picture?",
        "When all noise is gone, a second network, the VAE, turns the latents into pixels. "
        "On the left are the channels of the latents, on the right what the VAE makes of them. That is the picture.",
    ),
)


def render_part(part: WalkStep) -> str:
    return f'<div class="walk"><h3>{escape(part.question)}</h3><p>{escape(part.text)}</p></div>'


def render_frame(page: str) -> str:
    """A lesson page in a frame of its own: its scripts run there, and can reach nothing of this page."""
    return (
        '<iframe class="lesson" title="How the picture came out of noise, step by step" '
        f'sandbox="allow-scripts" srcdoc="{escape(page, quote=True)}"></iframe>'
    )
