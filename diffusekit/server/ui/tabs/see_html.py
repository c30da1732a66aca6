"""HTML of the See tab: the frame of a lesson page, and the texts of the step-by-step introduction."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

WELCOME = (
    '<div class="empty-run"><strong>See how an image is generated from noise.</strong>'
    "<p>Write a prompt, or press “See how” next to an image in Generate or Gallery. "
    "You get every denoising step under a slider, attention maps of each word, all numbers, "
    "and an introduction in five parts.</p></div>"
)


@dataclass(frozen=True)
class WalkStep:
    """One part of the introduction: the figure that it explains, a title, a question and its answer."""

    figure: str
    title: str
    question: str
    text: str


WALK = (
    WalkStep(
        "noise",
        "Noise",
        "How was the model trained?",
        "Noise was added to training images, more and more from left to right, and the model had to predict "
        "the noise each time. A model that can predict noise can also remove it. "
        "Generating a new image starts at the right end, with pure noise.",
    ),
    WalkStep(
        "film",
        "Denoising",
        "What happens at each step?",
        "At each step the model predicts the finished image. The prediction is what you see. "
        "Then a little of the noise is removed in that direction, and the model predicts again. "
        "Colors and layout come first, then shapes, then details.",
    ),
    WalkStep(
        "steps",
        "Latents",
        "What does the model work on?",
        "Not on pixels but on latents: a small grid of numbers that stands for the image. "
        "Each column is one step. The rows are the latents, the predicted noise, and what the prompt changed "
        "compared with an empty prompt. Guidance amplifies that difference.",
    ),
    WalkStep(
        "words",
        "Words",
        "How does the model use the prompt?",
        "Each word of the prompt becomes a vector, and every position in the image attends to all words. "
        "Bright areas attended to that word. A learned token is such a vector too, "
        "found by training instead of taken from the vocabulary.",
    ),
    WalkStep(
        "decode",
        "Decoding",
        "How do latents become pixels?",
        "When all noise is removed, a second network, the VAE, decodes the latents. "
        "On the left are the channels of the latents, on the right is the decoded image.",
    ),
)


def render_part(part: WalkStep) -> str:
    return f'<div class="walk"><h3>{escape(part.question)}</h3><p>{escape(part.text)}</p></div>'


def render_frame(page: str) -> str:
    """A lesson page in a sandboxed frame: its scripts run there, and cannot reach this page."""
    return (
        '<iframe class="lesson" title="How the image was generated, step by step" '
        f'sandbox="allow-scripts" srcdoc="{escape(page, quote=True)}"></iframe>'
    )
