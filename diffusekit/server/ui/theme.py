"""How the page looks: colors for light and dark, fonts, style sheets and the script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradio.themes import Base, Font

_FOLDER = Path(__file__).parent
_SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONO = ("ui-monospace", "SF Mono", "Consolas", "monospace")
_COLORS = {
    "body_background_fill": ("#fcfcfa", "#14171a"),
    "background_fill_primary": ("#ffffff", "#1c2024"),
    "background_fill_secondary": ("#f4f4f0", "#181b1f"),
    "block_background_fill": ("#ffffff", "#1c2024"),
    "block_border_color": ("#d9dce0", "#363c43"),
    "border_color_primary": ("#d9dce0", "#363c43"),
    "body_text_color": ("#1d2126", "#e8eaed"),
    "body_text_color_subdued": ("#5c6570", "#a3abb5"),
    "block_label_text_color": ("#5c6570", "#a3abb5"),
    "block_title_text_color": ("#414a54", "#c3c9d0"),
    "block_info_text_color": ("#5c6570", "#a3abb5"),
    "input_background_fill": ("#ffffff", "#14171a"),
    "input_border_color": ("#c6cbd1", "#434a52"),
    "input_border_color_focus": ("#0b62c4", "#6db3ff"),
    "input_placeholder_color": ("#727b86", "#8b949e"),
    "button_primary_background_fill": ("#0b62c4", "#2f7fd6"),
    "button_primary_background_fill_hover": ("#084f9f", "#4a93e2"),
    "button_primary_text_color": ("#ffffff", "#ffffff"),
    "button_secondary_background_fill": ("#eef0ee", "#2a2f35"),
    "button_secondary_background_fill_hover": ("#e2e5e2", "#343a41"),
    "button_secondary_text_color": ("#1d2126", "#e8eaed"),
    "button_cancel_background_fill": ("#b42318", "#b9382e"),
    "button_cancel_background_fill_hover": ("#8f1c13", "#cf4a3f"),
    "button_cancel_text_color": ("#ffffff", "#ffffff"),
    "color_accent_soft": ("#e3eefa", "#1d2c3d"),
    "slider_color": ("#0b62c4", "#6db3ff"),
    "checkbox_background_color": ("#ffffff", "#14171a"),
    "checkbox_background_color_selected": ("#0b62c4", "#2f7fd6"),
    "checkbox_border_color": ("#c6cbd1", "#59626c"),
    "link_text_color": ("#0b62c4", "#6db3ff"),
}


def make_theme() -> Base:
    """Paper and ink, light and dark, in the fonts the visitor's system has."""
    colors: dict[str, str] = {}
    for name, (light, dark) in _COLORS.items():
        colors |= {name: light, f"{name}_dark": dark}
    base = Base(
        primary_hue="blue",
        neutral_hue="gray",
        radius_size="md",
        font=[Font(name) for name in _SANS],
        font_mono=[Font(name) for name in _MONO],
    )
    return base.set(**colors, color_accent="#0b62c4", block_shadow="none", block_label_shadow="none")


def page_options() -> dict[str, Any]:
    """What `launch` and `mount_gradio_app` take for the look of the page."""
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    head = '<meta name="referrer" content="no-referrer"><meta name="color-scheme" content="light dark">'
    return {
        "theme": make_theme(),
        "css": "".join((_FOLDER / f"{n}.css").read_text(encoding="utf-8") for n in ("style", "tabs")),
        "head": f"{head}<script>{script}</script>",
    }
