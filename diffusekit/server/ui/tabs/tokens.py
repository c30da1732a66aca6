"""The Tokens tab: the learned tokens of this server, inspected, imported, exported, combined and removed."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from ..context import PageContext, small_button
from ..trash_button import TrashButton
from . import tokens_html

FORMATS = [("diffusers", "diffusers"), ("A1111, Forge", "a1111"), ("ComfyUI, kohya", "kohya"), ("InvokeAI", "invokeai")]
FILE_TYPES = [".safetensors", ".pt", ".bin", ".png"]


@dataclass(frozen=True)
class ImportForm:
    """A file from another program, and the name and token to give it."""

    name: gr.Textbox
    token: gr.Textbox
    upload: gr.UploadButton


@dataclass(frozen=True)
class CombineForm:
    """A sum of words and tokens, its nearest words, and a name to save it as."""

    expression: gr.Textbox
    show: gr.Button
    nearest: gr.HTML
    name: gr.Textbox
    save: gr.Button


@dataclass(frozen=True)
class OpenToken:
    """The token that is open; `file` is the export of it."""

    column: gr.Column
    use: gr.Button
    remove: gr.Button
    details: gr.HTML
    format: gr.Dropdown
    file: gr.DownloadButton


@dataclass(frozen=True)
class TokensComponents:
    """The components of the tab. `chosen` is the name of the open token, `removed` the trash ids of removed ones."""

    tab: gr.Tab
    notice: gr.HTML
    undo: gr.Button
    table: gr.HTML
    importing: ImportForm
    combining: CombineForm
    trash: TrashButton
    open: OpenToken
    chosen: gr.State
    removed: gr.State


def add(context: PageContext) -> TokensComponents:
    """Lay out the tab. Only tabs may be children of the row of tabs, so states belong inside, too."""
    with gr.Tab("Tokens", id="tokens", elem_id="tab-tokens") as tab:
        notice = gr.HTML(elem_id="tokens-notice")
        undo = small_button("Undo", visible=False, elem_id="tokens-undo")
        with gr.Row(elem_id="library", elem_classes="bench wide"):
            with gr.Column(elem_classes="bench-form", min_width=0):
                table = gr.HTML(elem_id="tokens-table", js_on_load=tokens_html.SCRIPT)
                importing, combining = _add_import(), _add_combine()
                trash = TrashButton.add(context.jobs.embeddings, "tokens-trash")
            open_token = _add_open_token()
        return TokensComponents(
            tab, notice, undo, table, importing, combining, trash, open_token, gr.State(""), gr.State([])
        )


def _add_import() -> ImportForm:
    with gr.Accordion("Import", open=False, elem_id="token-import", elem_classes="card"):
        gr.HTML(
            '<p class="estimate">A .safetensors, .pt or .bin file from any program, or an image with an embedded '
            "token. Pickle files are opened in a sandboxed process.</p>"
        )
        with gr.Row(elem_classes="pair"):
            name = _text("Name", "from the file", "import-name")
            token = _text("Token", "from the file", "import-token")
        upload = gr.UploadButton("Choose a file …", file_types=FILE_TYPES, elem_id="import-file")
    return ImportForm(name, token, upload)


def _add_combine() -> CombineForm:
    with gr.Accordion("Combine", open=False, elem_id="token-combine", elem_classes="card"):
        expression = gr.Textbox(
            label="Sum of words and tokens",
            placeholder="cat - red + blue",
            max_lines=1,
            max_length=300,
            elem_id="sum",
        )
        show = gr.Button("Show nearest words", elem_id="sum-go")
        nearest = gr.HTML(elem_id="sum-near")
        with gr.Row(elem_classes="sizes"):
            name = _text("Save as", "name", "sum-name")
            save = small_button("Save", elem_classes="beside", elem_id="sum-keep")
    return CombineForm(expression, show, nearest, name, save)


def _add_open_token() -> OpenToken:
    with gr.Column(elem_classes="bench-view", min_width=0, visible=False, elem_id="token") as column:
        with gr.Row(elem_classes="tools"):
            use = gr.Button("Use in Generate", variant="primary", min_width=0, elem_id="token-use")
            remove = gr.Button("Remove", min_width=0, elem_id="token-remove")
        details = gr.HTML(elem_id="token-facts")
        formats = gr.Dropdown(FORMATS, value=None, label="Export for", elem_id="token-kind")
        file = gr.DownloadButton("Download", visible=False, elem_id="token-file")
    return OpenToken(column, use, remove, details, formats, file)


def _text(label: str, placeholder: str, elem_id: str) -> gr.Textbox:
    return gr.Textbox(label=label, placeholder=placeholder, max_lines=1, max_length=100, min_width=0, elem_id=elem_id)
