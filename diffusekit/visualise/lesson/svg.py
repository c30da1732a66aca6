"""The diagram of a U-Net on the lesson page, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


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
