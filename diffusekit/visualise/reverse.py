"""The reverse process: a picture coming out of noise, as a contact sheet, a film and numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from . import contact_sheet
from .contact_sheet import Cell
from .figure import Exhibit
from .trace import Moment, Trace, record

SIDE = 160  # pixels a picture is wide in sheets and films
COLUMNS = 8  # moments in a contact sheet


@dataclass(frozen=True)
class _Row:
    """One way of looking at every moment."""

    label: str
    values: Callable[[Moment], torch.Tensor]
    decoded: bool  # as a picture; otherwise its channels
    strength: float = 3.0


_ROWS = (
    _Row("noisy latents x_t,\ndecoded", lambda m: m.unit, True),
    _Row("x_t, its channels", lambda m: m.unit, False),
    _Row("noise found (ε)", lambda m: m.noise, False),
    _Row("believed picture x̂₀", lambda m: m.denoised, True),
)
_GUIDED = (
    _Row("x̂₀ without\nthe prompt", lambda m: _tensor(m.without), True),
    _Row("x̂₀ with\nthe prompt", lambda m: _tensor(m.with_prompt), True),
    _Row("what the prompt\nadds", lambda m: _tensor(m.guidance), False, 1.0),
)


def denoise(prompt: str, **settings: Any) -> Exhibit:
    """Make a picture and show its way from noise; takes the settings of `generate`.

    A still shows eight moments (fewer when there are fewer steps), a film and the numbers all of them.
    """
    return shown(record(prompt, **settings))


def shown(trace: Trace) -> Exhibit:
    """The exhibit of a trace that is there already."""
    return Exhibit(
        numbers={
            "settings": trace.picture.record.settings.model_dump(mode="json"),
            "steps": [moment.numbers() for moment in trace.moments],
        },
        sheet=lambda: _sheet(trace),
        film=lambda: _film(trace),
        record=trace.picture.record,
    )


def _rows(trace: Trace) -> tuple[_Row, ...]:
    return (*_ROWS, *_GUIDED) if trace.moments[0].without is not None else _ROWS


def _cells(trace: Trace, row: _Row, moments: Sequence[Moment]) -> list[Image.Image]:
    values = [row.values(m) for m in moments]
    if row.decoded:
        return list(trace.decode(values))
    return [contact_sheet.channels(value, SIDE, most=row.strength) for value in values]


def _sheet(trace: Trace) -> Image.Image:
    count = len(trace.moments)
    chosen = sorted({round(i * (count - 1) / (COLUMNS - 1)) for i in range(COLUMNS)})
    moments = [trace.moments[i] for i in chosen]
    rows = _rows(trace)
    cells = [[Cell(picture) for picture in _cells(trace, row, moments)] for row in rows]
    cells[0] = [Cell(c.picture, _caption(m, count)) for c, m in zip(cells[0], moments, strict=True)]
    cells[0].append(Cell(trace.picture.image, "the picture"))
    return contact_sheet.sheet(cells, side=SIDE, title=_title(trace), labels=[row.label for row in rows])


def _film(trace: Trace) -> Iterator[Image.Image]:
    """Each frame: everything of one moment, in two rows; the last one adds the finished picture."""
    rows = _rows(trace)
    strips = [_cells(trace, row, trace.moments) for row in rows]
    blank = Image.new("RGB", (SIDE, SIDE), contact_sheet.PAPER)
    half = -(-(len(rows) + 1) // 2)
    for i in range(len(trace.moments) + 1):
        at = min(i, len(trace.moments) - 1)
        cells = [Cell(strip[at], row.label) for strip, row in zip(strips, rows, strict=True)]
        done = i > at
        cells.append(Cell(trace.picture.image if done else blank, "the picture" if done else ""))
        told = " · ".join(_caption(trace.moments[at], len(trace.moments)).split("\n"))
        yield contact_sheet.sheet([cells[:half], cells[half:]], side=SIDE, title=told)


def _caption(moment: Moment, count: int) -> str:
    return (
        f"step {moment.index + 1} of {count}\nt = {moment.timestep}\nᾱ = {moment.alpha_bar:.2g}, σ = {moment.sigma:.2g}"
    )


def _title(trace: Trace) -> str:
    s = trace.picture.record.settings
    return f"{s.prompt}  ({s.sampler}, {s.steps} steps, guidance {s.guidance_scale:g}, seed {s.seed})"


def _tensor(found: torch.Tensor | None) -> torch.Tensor:
    assert found is not None
    return found
