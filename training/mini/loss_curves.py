"""Draw the loss of the U-Net: `python -m training.mini.loss_curves build/mini [build/next ...] --output curves.png`.

Reads the logs and contact sheets in the work folders of training and of all fine-tuning runs, in order. Draws the loss
at eight noise levels, what a wrong caption adds to it, and the contact sheets at 1, 10 and 100 % of all steps.
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
TIMESTEPS = torch.linspace(60, 999, 8).long()  # of `UNetTrainer.describe_losses`
SHARES = (0.01, 0.1, 1.0)


@dataclass
class TrainingLog:
    """Steps since the start, losses (8) and costs of a wrong caption (8) at each, and contact sheets."""

    steps: list[int] = field(default_factory=list)
    losses: list[list[float]] = field(default_factory=list)
    costs: list[list[float]] = field(default_factory=list)
    sheets: dict[int, Path] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)


def read_logs(folders: list[Path]) -> TrainingLog:
    """Read all runs, one after the other. If a step was logged twice, the last line counts."""
    history, before = TrainingLog(), 0
    for folder in folders:
        lines = {int(m[1]): m for m in _LINE.finditer((folder / "log.txt").read_text())}
        for step in sorted(lines):
            history.steps.append(before + step)
            history.losses.append([float(v) for v in lines[step][2].split()])
            history.costs.append([float(v) for v in lines[step][3].split()])
        for sheet in folder.glob("preview-0*.png"):
            history.sheets[before + int(sheet.stem.split("-")[1])] = sheet
        before = history.steps[-1] if history.steps else before
        if (folder / "preview-last.png").exists():
            history.sheets[before] = folder / "preview-last.png"
        history.ends.append(before)
    return history


def draw_curves(history: TrainingLog) -> Image.Image:
    """Draw two charts over thousands of steps, and the contact sheets below."""
    alphas = make_scheduler().alphas_cumprod
    thousands = np.array(history.steps) / 1000
    figure = Figure(figsize=(10, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for i, t in enumerate(TIMESTEPS):
        color = (0.1, 0.25 + 0.08 * i, 0.9 - 0.1 * i)
        noise = f"{1 - alphas[t]:.0%} noise" if i in (0, 7) else f"{1 - alphas[t]:.0%}"
        left.plot(thousands, [v[i] for v in history.losses], color=color, label=noise)
        right.plot(thousands, [v[i] for v in history.costs], color=color)
    left.set(title="loss", xlabel="thousand steps", yscale="log")
    right.set(title="what a wrong caption adds", xlabel="thousand steps")
    left.set_yticks((0.15, 0.2, 0.3, 0.5, 1.0), ("0.15", "0.2", "0.3", "0.5", "1"))
    left.minorticks_off()
    left.legend(fontsize=7, ncols=2)
    for end in history.ends[:-1]:
        left.axvline(end / 1000, color="gray", lw=0.6)
        right.axvline(end / 1000, color="gray", lw=0.6)
    figure.canvas.draw()
    charts = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    return _stack(charts, [history.sheets[s] for s in choose_sheets(history)])


def choose_sheets(history: TrainingLog) -> list[int]:
    """Return the steps with a contact sheet that are nearest to 1, 10 and 100 %."""
    return [min(history.sheets, key=lambda s: abs(s - share * history.ends[-1])) for share in SHARES]


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
    parser.add_argument("folders", type=Path, nargs="+", help="work folders, the first run first")
    parser.add_argument("--output", type=Path, default=Path("curves.png"))
    options = parser.parse_args()
    history = read_logs(options.folders)
    if not history.steps:
        parser.error("the logs of these folders have no line of a U-Net yet")
    draw_curves(history).save(options.output)
    steps = ", ".join(f"{step:,} ({step / history.ends[-1]:.0%})" for step in choose_sheets(history))
    print(f"{options.output}: {history.ends[-1]:,} steps, contact sheets at {steps}")


if __name__ == "__main__":
    main()
