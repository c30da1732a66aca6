"""The SVG drawings of the lesson page: curves over the steps, and the shape of a U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 320, 110
LEFT, RIGHT, TOP, BOTTOM = 4, 316, 10, 88


def variance_chart(signal: Sequence[float]) -> str:
    """Draw the shares of image (below) and noise (above) in the variance, over the steps."""
    points = [(_across(i, len(signal)), _up(value, 1.0)) for i, value in enumerate(signal)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    body = (
        f'<rect class="grain" x="{LEFT}" y="{TOP}" width="{RIGHT - LEFT}" height="{BOTTOM - TOP}"/>'
        f'<polygon class="signal" points="{LEFT},{BOTTOM} {line} {RIGHT},{BOTTOM}"/>'
    )
    label = f"The image's share rises from {signal[0]:.2g} to {signal[-1]:.3g} over the steps"
    keys = '<span class="key t-x0">▬ image ᾱ</span> <span class="key t-ep">▬ noise 1 − ᾱ</span>'
    return _figure("What x<sub>t</sub> is made of", body, label, keys)


def line_chart(title: str, named: Sequence[tuple[str, str, Sequence[float]]]) -> str:
    """Draw curves over the steps on one scale from zero. Each is (name, color class, values)."""
    top = max((value for _, _, values in named for value in values), default=0) or 1.0
    parts, keys = [], []
    for name, kind, values in named:
        points = " ".join(f"{_across(i, len(values)):.1f},{_up(value, top):.1f}" for i, value in enumerate(values))
        parts.append(f'<polyline class="curve {kind}" points="{points}"/>')
        keys.append(f'<span class="key {kind}">▬ {escape(name)}</span>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 1}">{top:.2g}</text>')
    label = "; ".join(f"{name}: from {v[0]:.2g} to {v[-1]:.2g}" for name, _, v in named)
    return _figure(title, "".join(parts), label, " ".join(keys))


def _figure(title: str, body: str, label: str, keys: str) -> str:
    return (
        f'<figure class="chart"><figcaption>{title}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{body}'
        f'<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{BOTTOM}" y2="{BOTTOM}"/>'
        f'<line class="cursor" x1="{RIGHT}" x2="{RIGHT}" y1="{TOP}" y2="{BOTTOM}"/>'
        f'<text x="{LEFT}" y="{HEIGHT - 6}">first step</text>'
        f'<text x="{RIGHT}" y="{HEIGHT - 6}" text-anchor="end">last step</text></svg>'
        f'<p class="keys-of">{keys}</p></figure>'
    )


def _across(i: int, count: int) -> float:
    return LEFT + (RIGHT - LEFT) * i / max(count - 1, 1)


def _up(value: float, top: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * min(value / top, 1)


def unet_diagram(size: tuple[int, int], widths: Sequence[int], attending: Sequence[bool]) -> str:
    """Draw the U of a U-Net: blocks as high as their latents, colored where they attend to the words.

    `size` is (h, w) of its latents, `widths` the channels of its levels, `attending` says which of them
    have cross-attention.
    """
    count = len(widths)
    levels = [*range(count), count - 1, *reversed(range(count))]
    sizes = [f"{size[0] // 2**i}×{size[1] // 2**i}" for i in range(count)]
    step = 520 / len(levels)
    parts = []
    for index, level in enumerate(levels):
        height = 96 * 0.68**level
        x, y = 20 + index * step, 62 - height / 2 + level * 9
        parts.append(
            f'<rect class="{"looks" if attending[level] else "outer"}" x="{x:.1f}" y="{y:.1f}"'
            f' width="{step * 0.62:.1f}" height="{height:.1f}" rx="4"/>'
        )
        if index == count or level < count - 1:
            middle, below = x + step * 0.31, y + height + 15
            parts.append(f'<text x="{middle:.1f}" y="{below:.1f}" text-anchor="middle">{sizes[level]}</text>')
        if index < count:
            right = 20 + (len(levels) - 1 - index) * step
            parts.append(f'<path class="bridge" d="M{x + step * 0.62:.1f} {y + 7:.1f}H{right:.1f}"/>')
    label = ", ".join(f"{s} with {w} channels" for s, w in zip(sizes, widths, strict=True))
    return (
        '<figure class="ushape"><svg viewBox="0 0 560 150" role="img"'
        f' aria-label="{escape(f"The levels of the U-Net: {label}, and back")}">{"".join(parts)}</svg>'
        f"<figcaption>{escape(label)}. <span class='key t-wi'>▬ levels with cross-attention to the words</span>"
        "</figcaption></figure>"
    )
