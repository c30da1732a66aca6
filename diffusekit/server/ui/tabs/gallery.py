"""The Gallery tab: the images on disk, searched, opened, compared, starred and deleted."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from ..context import IMAGE_TYPES, PageContext, small_button
from ..trash_button import TrashButton
from . import gallery_html, restore

PAGE = 48  # thumbnails on the page at first, and added by "Load more"
BY_PROMPT, BY_SIMILARITY = "Prompt", "Similarity"


@dataclass(frozen=True)
class SearchBar:
    """What is searched for. `similar` takes an image file."""

    query: gr.Textbox
    by: gr.Radio
    starred: gr.Checkbox
    similar: gr.UploadButton


@dataclass(frozen=True)
class OpenImage:
    """The image that is open: `slider` compares it with another, `see` shows it in the See tab."""

    column: gr.Column
    image: gr.Image
    slider: gr.ImageSlider
    details: gr.HTML
    restore: restore.RestoreButtons
    see: gr.Button
    star: gr.Button
    compare: gr.Button
    similar: gr.Button
    delete: gr.Button


@dataclass(frozen=True)
class GalleryComponents:
    """The components of the tab, and what the server remembers of one visitor.

    `rows` are the images found, `count` of them are on the page. `name` is the image that is open, `pinned` the
    one it is compared with. `deleted` holds (trash id, index, row) of deleted images, the latest last.
    """

    tab: gr.Tab
    search: SearchBar
    notice: gr.HTML
    undo: gr.Button
    thumbnails: gr.HTML
    more: gr.Button
    trash: TrashButton
    open: OpenImage
    rows: gr.State
    count: gr.State
    name: gr.State
    pinned: gr.State
    deleted: gr.State


def add(context: PageContext) -> GalleryComponents:
    """Lay out the tab. Only tabs may be children of the row of tabs, so states belong inside, too."""
    with gr.Tab("Gallery", id="gallery", elem_id="tab-gallery") as tab:
        search = _add_search()
        with gr.Row(elem_id="gallery-messages"):
            notice = gr.HTML(elem_id="gallery-notice")
            undo = small_button("Undo delete", visible=False, elem_id="undo")
        with gr.Row(elem_id="album"):
            with gr.Column(elem_id="shelves", min_width=0):
                thumbnails = gr.HTML(elem_id="pictures", js_on_load=gallery_html.SCRIPT)
                more = gr.Button("Load more", visible=False, elem_id="more-pictures")
                trash = TrashButton.add(context.jobs.outputs, "gallery-trash")
            open_image = _add_open_image()
        return GalleryComponents(
            tab=tab,
            search=search,
            notice=notice,
            undo=undo,
            thumbnails=thumbnails,
            more=more,
            trash=trash,
            open=open_image,
            rows=gr.State([]),
            count=gr.State(PAGE),
            name=gr.State(""),
            pinned=gr.State(""),
            deleted=gr.State([]),
        )


def _add_search() -> SearchBar:
    with gr.Row(elem_id="search"):
        query = gr.Textbox(
            label="Search",
            placeholder="Words of the prompt, or a description of the image",
            max_lines=1,
            show_label=False,
            container=False,
            max_length=500,
            min_width=0,
            elem_id="words-wanted",
        )
        by = gr.Radio(
            [BY_PROMPT, BY_SIMILARITY],
            value=BY_PROMPT,
            show_label=False,
            container=False,
            label="Search by",
            min_width=0,
            elem_id="how",
        )
        starred = gr.Checkbox(label="★ only", container=False, min_width=0, elem_id="starred")
        similar = gr.UploadButton("Search by image …", size="md", min_width=0, elem_id="like", file_types=IMAGE_TYPES)
    return SearchBar(query, by, starred, similar)


def _add_open_image() -> OpenImage:
    with gr.Column(elem_id="open", min_width=0, visible=False) as column:
        image = gr.Image(
            show_label=False,
            label="Image",
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
        with gr.Row(elem_classes="tools"):
            restore_buttons = restore.add_buttons()
            see = small_button("See how", elem_id="see-shown")
        with gr.Row(elem_classes="tools"):
            star = small_button("☆ Star", elem_id="star")
            compare = small_button("Compare", elem_id="compare")
            similar = small_button("Find similar", elem_id="alike")
            delete = small_button("Delete", elem_id="delete")
        details = gr.HTML(elem_id="facts")
    return OpenImage(column, image, slider, details, restore_buttons, see, star, compare, similar, delete)
