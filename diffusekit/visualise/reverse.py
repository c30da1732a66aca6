"""The reverse process: a picture coming out of noise, as a contact sheet, a film and numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from . import contact_sheet
from .contact_sheet import SheetCell
from .figure import Visualization
from .trace import Trace, TraceStep, record_trace

SIDE = 160  # pixels a picture is wide in sheets and films
COLUMNS = 8  # moments in a contact sheet


@dataclass(frozen=True)
class _Row:
    """One way of looking at every moment."""

    label: str
    values: Callable[[TraceStep], torch.Tensor]
    decoded: bool  # as a picture; otherwise its channels
    strength: float = 3.0


_ROWS = (
    _Row("noisy latents x_t,\ndecoded", lambda m: m.x_t_unit, True),
    _Row("x_t, its channels", lambda m: m.x_t_unit, False),
    _Row("noise found (ε)", lambda m: m.eps, False),
    _Row("believed picture x̂₀", lambda m: m.x0, True),
)
_GUIDED = (
    _Row("x̂₀ without\nthe prompt", lambda m: _tensor(m.x0_uncond), True),
    _Row("x̂₀ with\nthe prompt", lambda m: _tensor(m.x0_cond), True),
    _Row("what the prompt\nadds", lambda m: _tensor(m.guidance), False, 1.0),
)


def denoise(prompt: str, **settings: Any) -> Visualization:
    """Make a picture and show its way from noise; takes the settings of `generate`.

    A still shows eight moments (fewer when there are fewer steps), a film and the numbers all of them.
    """
    return render(record_trace(prompt, **settings))


def render(trace: Trace) -> Visualization:
    """The exhibit of a trace that is there already."""
    return Visualization(
        numbers={
            "settings": trace.result.record.settings.model_dump(mode="json"),
            "steps": [moment.numbers() for moment in trace.steps],
        },
        still=lambda: _sheet(trace),
        film=lambda: _film(trace),
        record=trace.result.record,
    )


def _rows(trace: Trace) -> tuple[_Row, ...]:
    return (*_ROWS, *_GUIDED) if trace.steps[0].x0_uncond is not None else _ROWS


def _cells(trace: Trace, row: _Row, moments: Sequence[TraceStep]) -> list[Image.Image]:
    values = [row.values(m) for m in moments]
    if row.decoded:
        return list(trace.decode(values))
    return [contact_sheet.channel_grid(value, SIDE, most=row.strength) for value in values]


def _sheet(trace: Trace) -> Image.Image:
    count = len(trace.steps)
    chosen = sorted({round(i * (count - 1) / (COLUMNS - 1)) for i in range(COLUMNS)})
    moments = [trace.steps[i] for i in chosen]
    rows = _rows(trace)
    cells = [[SheetCell(picture) for picture in _cells(trace, row, moments)] for row in rows]
    cells[0] = [SheetCell(c.image, _caption(m, count)) for c, m in zip(cells[0], moments, strict=True)]
    cells[0].append(SheetCell(trace.result.image, "the picture"))
    return contact_sheet.render_sheet(cells, side=SIDE, title=_title(trace), labels=[row.label for row in rows])


def _film(trace: Trace) -> Iterator[Image.Image]:
    """Each frame: everything of one moment, in two rows; the last one adds the finished picture."""
    rows = _rows(trace)
    strips = [_cells(trace, row, trace.steps) for row in rows]
    blank = Image.new("RGB", (SIDE, SIDE), contact_sheet.PAPER)
    half = -(-(len(rows) + 1) // 2)
    for i in range(len(trace.steps) + 1):
        at = min(i, len(trace.steps) - 1)
        cells = [SheetCell(strip[at], row.label) for strip, row in zip(strips, rows, strict=True)]
        done = i > at
        cells.append(SheetCell(trace.result.image if done else blank, "the picture" if done else ""))
        told = " · ".join(_caption(trace.steps[at], len(trace.steps)).split("\n"))
        yield contact_sheet.render_sheet([cells[:half], cells[half:]], side=SIDE, title=told)


def _caption(moment: TraceStep, count: int) -> str:
    return (
        f"step {moment.index + 1} of {count}\nt = {moment.timestep}\nᾱ = {moment.alpha_bar:.2g}, σ = {moment.sigma:.2g}"
    )


def _title(trace: Trace) -> str:
    s = trace.result.record.settings
    return f"{s.prompt}  ({s.sampler}, {s.steps} steps, guidance {s.guidance_scale:g}, seed {s.seed})"


def _tensor(found: torch.Tensor | None) -> torch.Tensor:
    assert found is not None
    return found
