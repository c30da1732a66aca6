"""One web page that shows how a picture came out of noise: it needs no network, a teacher can mail it.

`page("A beautiful galaxy", seed=7).save("lesson.html")`. Makes the pictures, or takes finished Traces;
how they are told is written in the .html, .css and .js files beside this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...embeddings import LearnedToken
from ...errors import UsageError
from ...pipeline import stream
from ..attention_maps import AttentionMapRecorder, AttentionMaps
from ..figure import Visualization
from ..trace import Trace
from .page import render_page
from .payload import LessonRun, build_payload

__all__ = ["check_prompts", "lesson", "render"]


def lesson(prompt: str | Sequence[str], **settings: Any) -> Visualization:
    """The lesson of one prompt, or of two side by side from the same noise.

    Takes the settings of `generate`; raises what it raises, and `UsageError` for more than two prompts.
    """
    prompts = check_prompts([prompt] if isinstance(prompt, str) else prompt)
    settings["images"] = 1
    watching = AttentionMapRecorder(stream(prompts, **settings))
    for _ in watching:
        pass
    return render(watching.traces, watching.generation.tokens, attention_maps=watching.attention_maps)


def check_prompts(prompts: Sequence[str]) -> list[str]:
    """The prompts as a list; raises `UsageError` unless there are one or two."""
    if not 1 <= len(prompts) <= 2:
        raise UsageError(
            f"the page shows one prompt, or two side by side, not {len(prompts)}",
            'diffusekit visualise page "a red apple" "a green apple"',
        )
    return list(prompts)


def render(
    traces: Sequence[Trace],
    tokens: Sequence[LearnedToken] = (),
    *,
    attention_maps: Sequence[AttentionMaps] = (),
) -> Visualization:
    """The lesson of one or two finished runs with the same settings but for their prompts.

    `tokens` are the learned tokens they used. `attention_maps` say which word each part of the picture looked at,
    one for each trace; without them the page has no maps.
    """
    assert 1 <= len(traces) <= 2 and len(attention_maps) in (0, len(traces)), (len(traces), len(attention_maps))
    runs = [
        LessonRun.of(trace, tokens, attention_maps[i] if attention_maps else None) for i, trace in enumerate(traces)
    ]
    numbers = {"settings": _settings(traces[0]), "runs": [run.numbers() for run in runs]}
    return Visualization(
        numbers,
        html=lambda: render_page(runs, build_payload(runs)),
        record=traces[0].result.record,
    )


def _settings(trace: Trace) -> dict[str, Any]:
    return trace.result.record.settings.model_dump(exclude={"prompt", "images", "batch", "device"})
