"""The common style of matplotlib figures, and a projection of points to two dimensions.

Figures are built without pyplot. In SVG files letters are written as shapes, so no font is needed.
"""

from __future__ import annotations

import warnings
from io import BytesIO
from typing import Any

import torch
from PIL import Image

from .contact_sheet import INK, PAPER, SOFT

# Okabe and Ito's palette, which color-blind readers can tell apart, and darker colors for long lists.
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
TITLE, TEXT, SMALL = 13, 11, 9.5  # font sizes in points
DPI = 100


def new_figure(width: float, height: float, title: str = "") -> Any:
    """Create an empty matplotlib Figure, `width` × `height` inches, with automatic layout."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER, layout="constrained")
    if title:
        figure.suptitle(title, fontsize=TITLE + 2, color=INK, x=0.01, ha="left")
    return figure


def style_axes(axes: Any, title: str, xlabel: str = "", ylabel: str = "") -> Any:
    """Set a title and the axis labels, draw a light grid, and hide the top and right border."""
    axes.set_facecolor(PAPER)
    axes.set_title(title, fontsize=TITLE, color=INK, loc="left", parse_math=False)
    axes.set_xlabel(xlabel, fontsize=TEXT, color=SOFT)
    axes.set_ylabel(ylabel, fontsize=TEXT, color=SOFT)
    axes.tick_params(labelsize=SMALL, colors=SOFT, length=3)
    axes.grid(True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(SOFT)
    return axes


def blank_axes(axes: Any, title: str = "") -> Any:
    """Turn axes into an empty canvas from (0, 0) to (1, 1)."""
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    if title:
        axes.set_title(title, fontsize=TITLE, color=INK, loc="left", parse_math=False)
    return axes


def draw_legend(axes: Any, **placement: Any) -> None:
    """Name the lines of some axes."""
    axes.legend(fontsize=SMALL, frameon=False, labelcolor=INK, **placement)


def line_style(number: int) -> dict[str, Any]:
    """Color and dash pattern of line `number`. No two lines look the same."""
    return {
        "color": COLORS[number % len(COLORS)],
        "linestyle": LINES[number // len(COLORS) % len(LINES)],
    }


def to_image(figure: Any) -> Image.Image:
    """Render a figure as an RGB image."""
    file = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that the font lacks are drawn as boxes
        figure.savefig(file, format="png", facecolor=PAPER)
    file.seek(0)
    return Image.open(file).convert("RGB")


def to_svg(figure: Any) -> str:
    """Render a figure as SVG text. The same figure always gives the same text."""
    import matplotlib

    file = BytesIO()
    options: dict[Any, Any] = {"svg.fonttype": "path", "svg.hashsalt": "diffusekit"}
    with warnings.catch_warnings(), matplotlib.rc_context(options):
        warnings.simplefilter("ignore")  # as above
        figure.savefig(file, format="svg", facecolor=PAPER, metadata={"Date": None})
    return file.getvalue().decode()


def project_to_plane(points: torch.Tensor) -> tuple[torch.Tensor, tuple[float, float]]:
    """Project points (N, D) on their first two principal components (Pearson, 1901).

    Returns the coordinates (N, 2) and the share of the variance along each component. A component
    without variance is zero. The sign is fixed: the first point that is not at the center of a
    component has a positive coordinate.
    """
    assert points.ndim == 2 and len(points), points.shape
    centered = points.double() - points.double().mean(dim=0)
    left, singular_values, _ = torch.linalg.svd(centered, full_matrices=False)
    total = float(singular_values.square().sum())
    is_real = singular_values > 1e-9 * max(float(points.abs().max()), 1e-30)
    coordinates = torch.zeros(len(points), 2, dtype=torch.float64)
    shares = [0.0, 0.0]
    for i in range(min(2, len(singular_values))):
        if is_real[i]:
            along = left[:, i] * singular_values[i]
            first = along[along.abs() > 1e-6 * along.abs().max()][0]
            coordinates[:, i] = along * first.sign()
            shares[i] = float(singular_values[i].square()) / total
    return coordinates, (shares[0], shares[1])
