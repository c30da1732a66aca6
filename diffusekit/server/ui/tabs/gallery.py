"""The Gallery tab: the pictures on disk, found again, looked at, compared, starred and tidied away.

Lends in `house.places`: `shown` (a state: the path of the picture that is open, below the outputs folder)
and `shown.actions` (the row of buttons below it).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from ...storage.similarity import ImageSearch
from ..context import PRIVATE, QUICK, House, error_notice
from ..trash_button import TrashButton
from . import gallery_html, generate_restore
from .gallery_handlers import LIKENESS, PAGE, WORDS, Desk, Shown


def add(house: House) -> None:
    """Lay out the tab and wire it up."""
    tab, row = _layout(house.album.outputs)
    house.places |= {"shown": tab.name, "shown.actions": row, "gallery.parts": tab}
    kept = Path(house.settings.state) / "likeness.safetensors"
    desk = Desk(house.album, ImageSearch(house.jobs.models, house.jobs.outputs, kept), tab)
    wanted = [tab.words, tab.how, tab.starred, tab.name]
    slow: dict[str, Any] = PRIVATE | {"concurrency_limit": 4, "show_progress": "hidden"}
    gr.on(
        [tab.words.submit, tab.how.change, tab.starred.change],
        desk.search,
        wanted,
        desk.listing,
        trigger_mode="multiple",
        **slow,
    )
    tab.words.change(desk.typed, wanted, desk.listing, trigger_mode="always_last", **QUICK)
    house.places["tab.gallery"].select(desk.typed, wanted, desk.listing, **QUICK)
    tab.like.upload(desk.like_file, [tab.like, tab.name], desk.listing, **slow)
    tab.alike.click(desk.like_shown, tab.name, desk.listing, **slow)
    tab.more.click(desk.more, [tab.found, tab.count, tab.name], desk.listing, **QUICK)
    tab.pictures.pick(desk.pick, tab.pinned, desk.opening, **QUICK)
    now = [tab.name, tab.found, tab.count]
    tab.star.click(desk.star, now, [*desk.listing, tab.star], **QUICK)
    everything = list(dict.fromkeys([*desk.listing, *desk.opening, tab.thrown, tab.undo]))
    tab.delete.click(desk.delete, [*now, tab.thrown], everything, **QUICK)
    tab.undo.click(desk.undo, [*now, tab.thrown], everything, **QUICK)
    tab.trash.button.click(desk.empty, tab.trash.asked, everything, **QUICK)
    tab.compare.click(desk.compare, [tab.name, tab.pinned], [*desk.opening, tab.notice], **QUICK)


def connect(house: House) -> None:
    """A picture's settings go into the form of the Generate tab, which then opens."""
    tab: Shown = house.places["gallery.parts"]
    form: dict[str, Any] = house.places["form"]
    notice, tabs = house.places["notice"], house.tabs
    assert tabs is not None

    def again(what: generate_restore.RestoreMode) -> Any:
        def use_it(name: str) -> dict[Any, Any]:
            try:
                path = house.album.path_of(name)
                found = generate_restore.form_updates(house.jobs, path, what, form)
                words = generate_restore.restore_notice(house.jobs, path, what)
                return found | {notice: words, tabs: gr.Tabs(selected="generate")}
            except Exception as error:
                return {tab.notice: error_notice(error)}

        return use_it

    for what, button in tab.use.items():
        button.click(again(what), tab.name, [*form.values(), notice, tab.notice, tabs], **QUICK)


def _layout(outputs: Path) -> tuple[Shown, gr.Row]:
    with gr.Row(elem_id="search"):
        words = gr.Textbox(
            label="Search",
            placeholder="Words of a prompt, or what it looks like",
            max_lines=1,
            show_label=False,
            container=False,
            max_length=500,
            min_width=0,
            elem_id="words-wanted",
        )
        how = gr.Radio(
            [WORDS, LIKENESS],
            value=WORDS,
            show_label=False,
            container=False,
            label="Search by",
            min_width=0,
            elem_id="how",
        )
        starred = gr.Checkbox(label="★ only", container=False, min_width=0, elem_id="starred")
        like = gr.UploadButton(
            "Like a picture …", size="md", min_width=0, elem_id="like", file_types=[".png", ".jpg", ".jpeg", ".webp"]
        )
    with gr.Row(elem_id="told"):
        notice = gr.HTML(elem_id="gallery-notice")
        undo = gr.Button("Undo delete", size="sm", visible=False, min_width=0, elem_id="undo")
    with gr.Row(elem_id="album"):
        with gr.Column(elem_id="shelves", min_width=0):
            pictures = gr.HTML(elem_id="pictures", js_on_load=gallery_html.SCRIPT)
            more = gr.Button("More", visible=False, elem_id="more-pictures")
            trash = TrashButton.add(outputs, "gallery-trash")
        with gr.Column(elem_id="open", min_width=0, visible=False) as opened:
            image = gr.Image(
                show_label=False,
                label="Picture",
                interactive=False,
                type="filepath",
                buttons=["download", "fullscreen"],
                elem_id="picture",
            )
            slider = gr.ImageSlider(
                show_label=False,
                label="Compare",
                visible=False,
                interactive=False,
                buttons=["fullscreen"],
                elem_id="slider",
            )
            with gr.Row(elem_classes="tools") as row:
                use: dict[generate_restore.RestoreMode, gr.Button] = {
                    "all": gr.Button("Use all", size="sm", min_width=0),
                    "remix": gr.Button("Remix", size="sm", min_width=0),
                    "seed": gr.Button("Use seed", size="sm", min_width=0),
                }
            with gr.Row(elem_classes="tools"):
                star = gr.Button("☆ Star", size="sm", min_width=0, elem_id="star")
                compare = gr.Button("Compare", size="sm", min_width=0, elem_id="compare")
                alike = gr.Button("More like this", size="sm", min_width=0, elem_id="alike")
                delete = gr.Button("Delete", size="sm", min_width=0, elem_id="delete")
            told = gr.HTML(elem_id="facts")
    states = (gr.State([]), gr.State(PAGE), gr.State(""), gr.State(""), gr.State([]))
    shown = Shown(
        words,
        how,
        starred,
        like,
        pictures,
        more,
        notice,
        undo,
        opened,
        image,
        slider,
        told,
        star,
        compare,
        alike,
        delete,
        use,
        trash,
        *states,
    )
    return shown, row
