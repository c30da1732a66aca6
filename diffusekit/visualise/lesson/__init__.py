"""The lesson (verb `lesson`): one self-contained web page that explains how an image came out of noise.

`lesson("A beautiful galaxy", seed=7).save("lesson.html")`. The texts of the page are in the .html files of this
folder, its looks and behavior in the .css and .js files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from ...embeddings import LearnedToken
from ...errors import UsageError
from ...pipeline import stream
from ..attention_maps import AttentionMapRecorder, AttentionMaps
from ..figure import Visualization
from ..trace import StreamOptions, Trace
from .page import render_page
from .payload import LessonRun, build_payload

__all__ = ["check_prompts", "lesson", "render"]


def lesson(prompt: str | Sequence[str], **options: Unpack[StreamOptions]) -> Visualization:
    """Generate the image of one prompt, or of two from the same noise, and explain it on a web page.

    Takes the options of `generate` and raises the same errors, and `UsageError` for more than two prompts.
    """
    syntax = options.get("prompt_syntax", "plain")
    prompts = check_prompts([prompt] if isinstance(prompt, str) else prompt, syntax=syntax)
    options["images"] = 1
    recorder = AttentionMapRecorder(stream(prompts, **options))
    for _ in recorder:
        pass
    return render(recorder.traces, recorder.generation.tokens, attention_maps=recorder.attention_maps)


def check_prompts(prompts: Sequence[str], *, syntax: str = "plain") -> list[str]:
    """Return the prompts as a list. Raises `UsageError` unless there are one or two, in plain text."""
    if syntax != "plain":
        raise UsageError("the lesson explains prompts in plain text", "set `prompt_syntax` to plain")
    if not 1 <= len(prompts) <= 2:
        raise UsageError(f"the lesson shows one or two prompts, got {len(prompts)}", "give one prompt, or two")
    return list(prompts)


def render(
    traces: Sequence[Trace],
    tokens: Sequence[LearnedToken] = (),
    *,
    attention_maps: Sequence[AttentionMaps] = (),
) -> Visualization:
    """Explain one or two finished runs, which have the same settings except for the prompt.

    `tokens` are the learned tokens that they used. `attention_maps` has one entry for each trace. Without
    it, the page has no maps.
    """
    assert 1 <= len(traces) <= 2 and len(attention_maps) in (0, len(traces)), (len(traces), len(attention_maps))
    every_maps = attention_maps or [None] * len(traces)
    runs = [LessonRun.of(trace, tokens, maps) for trace, maps in zip(traces, every_maps, strict=True)]
    settings = traces[0].result.record.settings
    return Visualization(
        numbers={
            "settings": settings.model_dump(exclude={"prompt", "images", "batch", "device"}),
            "runs": [run.numbers() for run in runs],
        },
        html=lambda: render_page(runs, build_payload(runs)),
        record=traces[0].result.record,
    )
