"""The look of plots: one figure, one panel, one set of colors; and many dimensions drawn in two.

Drawn by matplotlib's objects, never through pyplot, and written as PNG or as SVG whose letters are
shapes, so that it needs no font. Knows numbers, no models.
"""

from __future__ import annotations

import warnings
from io import BytesIO
from typing import Any

import torch
from PIL import Image

from .contact_sheet import INK, PAPER, SOFT

# Okabe and Ito's colors, told apart by color-blind eyes too, and darker ones for long lists.
COLORS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#1d2126",
    "#7f3c8d",
    "#80571b",
    "#117733",
    "#882255",
    "#888888",
)
LINES = ("-", "--", "-.", ":")
GRID = "#d9dcdf"
TITLE, TEXT, SMALL = 13, 11, 9.5  # points
DOTS = 100  # per inch, in a PNG


def new_figure(width: float, height: float, title: str = "") -> Any:
    """An empty matplotlib Figure of so many inches, laid out by itself."""
    from matplotlib.figure import Figure

    found = Figure(figsize=(width, height), dpi=DOTS, facecolor=PAPER, layout="constrained")
    if title:
        found.suptitle(title, fontsize=TITLE + 2, color=INK, x=0.01, ha="left")
    return found


def style_axes(axes: Any, title: str, across: str = "", up: str = "") -> Any:
    """Give axes their title, the names of their two directions, a quiet grid and no box."""
    axes.set_facecolor(PAPER)
    axes.set_title(title, fontsize=TITLE, color=INK, loc="left", parse_math=False)
    axes.set_xlabel(across, fontsize=TEXT, color=SOFT)
    axes.set_ylabel(up, fontsize=TEXT, color=SOFT)
    axes.tick_params(labelsize=SMALL, colors=SOFT, length=3)
    axes.grid(True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(SOFT)
    return axes


def blank_axes(axes: Any, title: str = "") -> Any:
    """Axes as a sheet of paper from (0, 0) to (1, 1), without marks."""
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    if title:
        axes.set_title(title, fontsize=TITLE, color=INK, loc="left", parse_math=False)
    return axes


def legend(axes: Any, **where: Any) -> None:
    """Name the lines of some axes."""
    axes.legend(fontsize=SMALL, frameon=False, labelcolor=INK, **where)


def line_style(number: int) -> dict[str, Any]:
    """Color and dash of line `number`: never the same pair twice."""
    return {
        "color": COLORS[number % len(COLORS)],
        "linestyle": LINES[number // len(COLORS) % len(LINES)],
    }


def to_image(drawn: Any) -> Image.Image:
    """A figure as an RGB picture."""
    file = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font does not have, which become boxes
        drawn.savefig(file, format="png", facecolor=PAPER)
    file.seek(0)
    return Image.open(file).convert("RGB")


def to_svg(drawn: Any) -> str:
    """A figure as the text of an SVG file, the same every time."""
    import matplotlib

    file = BytesIO()
    own: dict[Any, Any] = {"svg.fonttype": "path", "svg.hashsalt": "diffusekit"}
    with warnings.catch_warnings(), matplotlib.rc_context(own):
        warnings.simplefilter("ignore")  # as above
        drawn.savefig(file, format="svg", facecolor=PAPER, metadata={"Date": None})
    return file.getvalue().decode()


def project_to_plane(points: torch.Tensor) -> tuple[torch.Tensor, tuple[float, float]]:
    """Points (N, D) seen from where they spread most: (N, 2), and the share of the variance along each.

    Principal component analysis (Pearson, 1901). A direction that nothing varies in is zero. The first
    point that is not in the middle of a direction lies on its right, or upper, side.
    """
    assert points.ndim == 2 and len(points), points.shape
    centred = points.double() - points.double().mean(dim=0)
    left, spread, _ = torch.linalg.svd(centred, full_matrices=False)
    total = float(spread.square().sum())
    real = spread > 1e-9 * max(float(points.abs().max()), 1e-30)
    found = torch.zeros(len(points), 2, dtype=torch.float64)
    shares = [0.0, 0.0]
    for i in range(min(2, len(spread))):
        if real[i]:
            along = left[:, i] * spread[i]
            first = along[along.abs() > 1e-6 * along.abs().max()][0]
            found[:, i] = along * first.sign()
            shares[i] = float(spread[i].square()) / total
    return found, (shares[0], shares[1])
