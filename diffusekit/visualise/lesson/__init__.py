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
from ..attention_maps import Watching
from ..figure import Exhibit
from ..trace import Trace
from .page import written
from .payload import Heat, Run, gathered

__all__ = ["Heat", "check", "exhibit", "page"]


def page(prompt: str | Sequence[str], **settings: Any) -> Exhibit:
    """The lesson of one prompt, or of two side by side from the same noise.

    Takes the settings of `generate`; raises what it raises, and `UsageError` for more than two prompts.
    """
    prompts = check([prompt] if isinstance(prompt, str) else prompt)
    watching = Watching(stream(prompts, **settings | {"images": 1}))
    for _ in watching:
        pass
    return exhibit(watching.traces, watching.running.tokens, heats=watching.heats)


def check(prompts: Sequence[str]) -> list[str]:
    """The prompts as a list; raises `UsageError` unless there are one or two."""
    if not 1 <= len(prompts) <= 2:
        raise UsageError(
            f"the page shows one prompt, or two side by side, not {len(prompts)}",
            'diffusekit visualise page "a red apple" "a green apple"',
        )
    return list(prompts)


def exhibit(
    traces: Sequence[Trace],
    tokens: Sequence[LearnedToken] = (),
    *,
    heats: Sequence[Heat] = (),
) -> Exhibit:
    """The lesson of one or two finished runs with the same settings but for their prompts.

    `tokens` are the learned tokens they used. `heats` say which word each part of the picture looked at,
    one for each trace; without them the page has no maps.
    """
    assert 1 <= len(traces) <= 2 and len(heats) in (0, len(traces)), (len(traces), len(heats))
    runs = [Run.of(trace, tokens, heats[i] if heats else None) for i, trace in enumerate(traces)]
    numbers = {"settings": _settings(traces[0]), "runs": [run.numbers() for run in runs]}
    return Exhibit(
        numbers,
        page=lambda: written(runs, gathered(runs)),
        record=traces[0].picture.record,
    )


def _settings(trace: Trace) -> dict[str, Any]:
    return trace.picture.record.settings.model_dump(exclude={"prompt", "images", "batch", "device"})
