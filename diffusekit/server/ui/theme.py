"""How the page looks: the theme, the files that come with it, and the small pieces of HTML it is made of.

Everything that came from a person, a prompt or a file passes `escape` here. Knows no jobs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Literal

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


def theme() -> Base:
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


def dress() -> dict[str, Any]:
    """What `launch` and `mount_gradio_app` take for the look of the page."""
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    head = '<meta name="referrer" content="no-referrer"><meta name="color-scheme" content="light dark">'
    return {
        "theme": theme(),
        "css": "".join((_FOLDER / f"{n}.css").read_text(encoding="utf-8") for n in ("style", "tabs")),
        "head": f"{head}<script>{script}</script>",
    }


# --- pieces ----------------------------------------------------------------------------------


def notice(message: str, hint: str = "", *, kind: Literal["error", "note"] = "note") -> str:
    """A sentence and what to do, read aloud when it appears."""
    role = "alert" if kind == "error" else "status"
    more = f'<span class="hint">{escape(hint)}</span>' if hint else ""
    return f'<p class="notice {kind}" role="{role}"><span>{escape(message)}</span>{more}</p>'


def meter(used: int, room: int, cut: str, learned: Sequence[str]) -> str:
    """How much of a prompt the model sees."""
    names = "".join(f'<span class="chip">{escape(name)}</span>' for name in learned)
    known = f"learned: {names}" if names else ""
    if not cut:
        return f'<p class="meter"><span>{used} / {room} tokens</span>{known}</p>'
    lost = cut if len(cut) < 200 else f"{cut[:200]}…"
    return (
        f'<p class="meter over" role="status"><span>{used} / {room} tokens</span>'
        f"not seen by the model: <del>{escape(lost)}</del>{known}</p>"
    )


def stage(previews: Sequence[str], share: float | None, words: str) -> str:
    """Where a picture comes into being: previews (addresses), how far it is, and a line of words."""
    columns = 1 if len(previews) < 2 else 2 if len(previews) < 5 else 4
    shown = "".join(
        f'<img src="{escape(address)}" alt="preview {i} of {len(previews)}">' for i, address in enumerate(previews, 1)
    )
    empty = '<div class="blank" aria-hidden="true"></div>'
    value = "" if share is None else f' value="{share:.4f}"'
    bar = f'<progress max="1"{value} aria-label="progress"></progress>'
    return (
        f'<figure class="stage"><div class="views" style="--columns:{columns}">{shown or empty}</div>'
        f'<figcaption>{bar}<span role="status">{escape(words)}</span></figcaption></figure>'
    )


def welcome() -> str:
    """What stands in the stage before the first picture."""
    return (
        '<figure class="stage welcome"><div><strong>Your pictures appear here.</strong>'
        "<span>Write what you want to see and press <kbd>Ctrl</kbd> <kbd>Enter</kbd>; <kbd>Esc</kbd> "
        "stops. Left empty, the form picks an example.</span>"
        "<span>Drop a picture anywhere on the page to have its settings back.</span></div></figure>"
    )


def table(rows: Mapping[str, Any]) -> str:
    """Names and values in two columns; what is empty is left out."""
    lines = "".join(
        f"<tr><th scope=row>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>"
        for name, value in rows.items()
        if value not in ("", None, (), [], {})
    )
    return f'<table class="facts">{lines}</table>' if lines else ""


def word_list(words: Sequence[str]) -> str:
    """Words for the page's script to complete in prompts, as an attribute nobody sees."""
    return f'<div data-words="{escape(json.dumps(list(words)))}"></div>'


def banner() -> str:
    """The name of the house, and the switch between light and dark."""
    return (
        '<header class="banner"><strong>diffusekit</strong>'
        '<button type="button" id="shade" aria-label="Switch between light and dark"></button></header>'
    )
