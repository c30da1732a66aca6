"""The reverse process (verb `denoise`): how an image comes out of noise, as a contact sheet, a film and numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from PIL import Image

from . import contact_sheet
from .contact_sheet import SheetCell
from .figure import Visualization
from .trace import StreamOptions, Trace, TraceStep, record_trace

SIDE = 160  # width of an image in sheets and films, in pixels
COLUMNS = 8  # steps in a contact sheet


@dataclass(frozen=True)
class _Row:
    """One view of every step: which tensor, and whether it is decoded or shown as channels."""

    label: str
    tensor: Callable[[TraceStep], torch.Tensor | None]
    decoded: bool
    vmax: float = 3.0


_ROWS = (
    _Row("noisy latents x_t,\ndecoded", lambda step: step.x_t_unit, True),
    _Row("channels of x_t", lambda step: step.x_t_unit, False),
    _Row("predicted noise ε̂", lambda step: step.eps, False),
    _Row("predicted image x̂₀", lambda step: step.x0, True),
)
_GUIDED_ROWS = (
    _Row("x̂₀ without\nthe prompt", lambda step: step.x0_uncond, True),
    _Row("x̂₀ with\nthe prompt", lambda step: step.x0_cond, True),
    _Row("what the prompt\nadds", lambda step: step.guidance, False, 1.0),
)


def denoise(prompt: str, **options: Unpack[StreamOptions]) -> Visualization:
    """Generate an image and show the reverse process. Takes the options of `generate`.

    A still shows eight steps, or fewer if the image has fewer. A film and the numbers show all steps.
    """
    return render(record_trace(prompt, **options))


def render(trace: Trace) -> Visualization:
    """Show a recorded trace."""
    return Visualization(
        numbers={
            "settings": trace.result.record.settings.model_dump(mode="json"),
            "steps": [step.numbers() for step in trace.steps],
        },
        still=lambda: _still(trace),
        film=lambda: _film(trace),
        record=trace.result.record,
    )


def _rows(trace: Trace) -> tuple[_Row, ...]:
    return (*_ROWS, *_GUIDED_ROWS) if trace.steps[0].guidance is not None else _ROWS


def _row_images(trace: Trace, row: _Row, steps: Sequence[TraceStep]) -> list[Image.Image]:
    tensors = [tensor for step in steps if (tensor := row.tensor(step)) is not None]
    if row.decoded:
        return list(trace.decode(tensors))
    return [contact_sheet.channel_grid(tensor, SIDE, vmax=row.vmax) for tensor in tensors]


def _still(trace: Trace) -> Image.Image:
    count = len(trace.steps)
    chosen = sorted({round(i * (count - 1) / (COLUMNS - 1)) for i in range(COLUMNS)})
    steps = [trace.steps[i] for i in chosen]
    rows = _rows(trace)
    cells = [[SheetCell(image) for image in _row_images(trace, row, steps)] for row in rows]
    cells[0] = [SheetCell(c.image, _caption(step, count)) for c, step in zip(cells[0], steps, strict=True)]
    cells[0].append(SheetCell(trace.result.image, "final image"))
    return contact_sheet.render_sheet(cells, side=SIDE, title=_title(trace), labels=[row.label for row in rows])


def _film(trace: Trace) -> Iterator[Image.Image]:
    """One frame per step, all views in two rows. A last frame adds the finished image."""
    rows = _rows(trace)
    strips = [_row_images(trace, row, trace.steps) for row in rows]
    blank = Image.new("RGB", (SIDE, SIDE), contact_sheet.PAPER)
    half = -(-(len(rows) + 1) // 2)
    count = len(trace.steps)
    for i in range(count + 1):
        at = min(i, count - 1)
        cells = [SheetCell(strip[at], row.label) for strip, row in zip(strips, rows, strict=True)]
        is_last = i == count
        cells.append(SheetCell(trace.result.image if is_last else blank, "final image" if is_last else ""))
        title = _caption(trace.steps[at], count).replace("\n", " · ")
        yield contact_sheet.render_sheet([cells[:half], cells[half:]], side=SIDE, title=title)


def _caption(step: TraceStep, count: int) -> str:
    return f"step {step.index + 1} of {count}\nt = {step.timestep}\nᾱ = {step.alpha_bar:.2g}, σ = {step.sigma:.2g}"


def _title(trace: Trace) -> str:
    s = trace.result.record.settings
    return f"{s.prompt}  ({s.sampler}, {s.steps} steps, guidance {s.guidance_scale:g}, seed {s.seed})"
