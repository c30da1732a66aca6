"""What training looked like: `python -m training.mini.loss_curves build/mini [build/next ...] --output curves.png`.

Reads the logs and contact sheets that the U-Net's sittings left in their work folders, in order: the loss at
eight noise levels, what a wrong caption would have cost there, and the pictures at 1, 10 and 100 % of all steps.
"""

import argparse
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from .unet import make_scheduler

_LINE = re.compile(r"unet: step (\d+), .*loss ([\d. ]+)\| wrong caption ([-+\d. ]+)")
TIMESTEPS = torch.linspace(60, 999, 8).long()  # of `Learner.report`
SHARES = (0.01, 0.1, 1.0)


@dataclass
class TrainingLog:
    """Steps since the beginning, and at each the losses (8) and costs (8); contact sheets by step."""

    steps: list[int] = field(default_factory=list)
    losses: list[list[float]] = field(default_factory=list)
    costs: list[list[float]] = field(default_factory=list)
    sheets: dict[int, Path] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)


def read_logs(folders: list[Path]) -> TrainingLog:
    """All sittings one after the other; what was logged twice counts as it was the last time."""
    found, before = TrainingLog(), 0
    for folder in folders:
        lines = {int(m[1]): m for m in _LINE.finditer((folder / "log.txt").read_text())}
        for step in sorted(lines):
            found.steps.append(before + step)
            found.losses.append([float(v) for v in lines[step][2].split()])
            found.costs.append([float(v) for v in lines[step][3].split()])
        for sheet in folder.glob("preview-0*.png"):
            found.sheets[before + int(sheet.stem.split("-")[1])] = sheet
        before = found.steps[-1] if found.steps else before
        if (folder / "preview-last.png").exists():
            found.sheets[before] = folder / "preview-last.png"
        found.ends.append(before)
    return found


def draw_curves(found: TrainingLog) -> Image.Image:
    """Two charts side by side over thousands of steps, and the contact sheets below."""
    alphas = make_scheduler().alphas_cumprod
    thousands = np.array(found.steps) / 1000
    figure = Figure(figsize=(10, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for i, t in enumerate(TIMESTEPS):
        tone = (0.1, 0.25 + 0.08 * i, 0.9 - 0.1 * i)
        noise = f"{1 - alphas[t]:.0%} noise" if i in (0, 7) else f"{1 - alphas[t]:.0%}"
        left.plot(thousands, [v[i] for v in found.losses], color=tone, label=noise)
        right.plot(thousands, [v[i] for v in found.costs], color=tone)
    left.set(title="loss", xlabel="thousand steps", yscale="log")
    right.set(title="what a wrong caption would cost", xlabel="thousand steps")
    left.set_yticks((0.15, 0.2, 0.3, 0.5, 1.0), ("0.15", "0.2", "0.3", "0.5", "1"))
    left.minorticks_off()
    left.legend(fontsize=7, ncols=2)
    for end in found.ends[:-1]:
        left.axvline(end / 1000, color="gray", lw=0.6)
        right.axvline(end / 1000, color="gray", lw=0.6)
    figure.canvas.draw()
    charts = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    return _stack(charts, [found.sheets[s] for s in choose_sheets(found)])


def choose_sheets(found: TrainingLog) -> list[int]:
    """The steps nearest to 1, 10 and 100 % of which there is a contact sheet."""
    return [min(found.sheets, key=lambda s: abs(s - share * found.ends[-1])) for share in SHARES]


def _stack(charts: Image.Image, sheets: list[Path]) -> Image.Image:
    rows = []
    for path in sheets:
        with Image.open(path) as sheet:
            row = sheet.convert("RGB")
        rows.append(row.resize((charts.width, row.height * charts.width // row.width)))
    page = Image.new("RGB", (charts.width, charts.height + sum(r.height + 8 for r in rows)), "white")
    page.paste(charts)
    y = charts.height
    for row in rows:
        page.paste(row, (0, y + 8))
        y += row.height + 8
    return page


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.mini.loss_curves", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="work folders, the first sitting first")
    parser.add_argument("--output", type=Path, default=Path("curves.png"))
    options = parser.parse_args()
    found = read_logs(options.folders)
    if not found.steps:
        parser.error("no U-Net has been logged there yet")
    draw_curves(found).save(options.output)
    steps = ", ".join(f"{step:,} ({step / found.ends[-1]:.0%})" for step in choose_sheets(found))
    print(f"{options.output}: {found.ends[-1]:,} steps; pictures at {steps}")


if __name__ == "__main__":
    main()
