"""The Tokens tab: the learned tokens that are here, looked at, brought in, handed out, combined, removed."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from .... import embeddings
from ....errors import UsageError
from ...storage import tokens
from .. import html, prompt_info
from ..context import PRIVATE, QUICK, House, error_notice
from ..trash_button import TrashButton
from . import tokens_html

KINDS = [("diffusers", "diffusers"), ("A1111, Forge", "a1111"), ("ComfyUI, kohya", "kohya"), ("InvokeAI", "invokeai")]
FILES = [".safetensors", ".pt", ".bin", ".png"]
Answer = dict[Any, Any]


@dataclass
class Parts:
    """The components. `chosen` is the name of the token that is open, `removed` what brings back others."""

    table: gr.HTML
    notice: gr.HTML
    undo: gr.Button
    panel: gr.Column
    facts: gr.HTML
    use: gr.Button
    remove: gr.Button
    kind: gr.Dropdown
    file: gr.DownloadButton
    upload: gr.UploadButton
    name: gr.Textbox
    token: gr.Textbox
    sum: gr.Textbox
    add: gr.Button
    near: gr.HTML
    sum_name: gr.Textbox
    keep: gr.Button
    trash: TrashButton
    chosen: gr.State
    removed: gr.State


def add(house: House) -> None:
    """Lay out the tab."""
    notice = gr.HTML(elem_id="tokens-notice")
    undo = gr.Button("Undo", size="sm", visible=False, min_width=0, elem_id="tokens-undo")
    with gr.Row(elem_id="library", elem_classes="bench wide"):
        with gr.Column(elem_classes="bench-form", min_width=0):
            table = gr.HTML(elem_id="tokens-table", js_on_load=tokens_html.SCRIPT)
            upload, name, token = _bringing_in()
            total, plus, near, sum_name, keep = _adding()
            trash = TrashButton.add(house.jobs.embeddings, "tokens-trash")
        with gr.Column(elem_classes="bench-view", min_width=0, visible=False, elem_id="token") as panel:
            with gr.Row(elem_classes="tools"):
                use = gr.Button("Use it in Generate", variant="primary", min_width=0, elem_id="token-use")
                remove = gr.Button("Remove", min_width=0, elem_id="token-remove")
            facts = gr.HTML(elem_id="token-facts")
            kind = gr.Dropdown(KINDS, value=None, label="Export for", elem_id="token-kind")
            file = gr.DownloadButton("Download", visible=False, elem_id="token-file")
    parts = Parts(
        table,
        notice,
        undo,
        panel,
        facts,
        use,
        remove,
        kind,
        file,
        upload,
        name,
        token,
        total,
        plus,
        near,
        sum_name,
        keep,
        trash,
        gr.State(""),
        gr.State([]),
    )
    house.places["tokens.parts"] = parts


def _bringing_in() -> tuple[gr.UploadButton, gr.Textbox, gr.Textbox]:
    with gr.Accordion("Import", open=False, elem_id="token-import", elem_classes="card"):
        gr.HTML(
            '<p class="estimate">A .safetensors, .pt or .bin file of any program, or a picture that '
            "carries a token. Files that could run code are opened apart from the server.</p>"
        )
        with gr.Row(elem_classes="pair"):
            name = gr.Textbox(
                label="Name", placeholder="the file’s", max_lines=1, max_length=100, min_width=0, elem_id="import-name"
            )
            token = gr.Textbox(
                label="Token",
                placeholder="the file’s",
                max_lines=1,
                max_length=100,
                min_width=0,
                elem_id="import-token",
            )
        upload = gr.UploadButton("Choose a file …", file_types=FILES, elem_id="import-file")
    return upload, name, token


def _adding() -> tuple[gr.Textbox, gr.Button, gr.HTML, gr.Textbox, gr.Button]:
    with gr.Accordion("Combine", open=False, elem_id="token-combine", elem_classes="card"):
        total = gr.Textbox(
            label="A sum of words and tokens",
            placeholder="cat - red + blue",
            max_lines=1,
            max_length=300,
            elem_id="sum",
        )
        plus = gr.Button("What is it near?", elem_id="sum-go")
        near = gr.HTML(elem_id="sum-near")
        with gr.Row(elem_classes="sizes"):
            name = gr.Textbox(
                label="Keep it as", placeholder="a name", max_lines=1, max_length=100, min_width=0, elem_id="sum-name"
            )
            keep = gr.Button("Keep", size="sm", min_width=0, elem_classes="beside", elem_id="sum-keep")
    return total, plus, near, name, keep


def connect(house: House) -> None:
    """Wire the tab up; tokens that come and go are known to the Generate tab at once."""
    parts: Parts = house.places["tokens.parts"]
    desk = _Desk(house, parts)
    fresh, outputs = house.places["refresh"]
    slow: dict[str, Any] = PRIVATE | {"concurrency_limit": 2, "show_progress": "hidden"}
    house.places["tab.tokens"].select(desk.enter, parts.chosen, desk.opening, **slow)
    parts.table.pick(desk.pick, None, desk.opening, **QUICK)
    parts.kind.input(desk.hand_out, [parts.kind, parts.chosen], [parts.file, parts.notice], **slow)
    changing: list[Any] = [*desk.opening, parts.undo, parts.removed, parts.name, parts.token]
    parts.remove.click(desk.remove, [parts.chosen, parts.removed], changing, **QUICK).then(
        fresh, None, outputs, **QUICK
    )
    parts.undo.click(desk.undo, parts.removed, changing, **QUICK).then(fresh, None, outputs, **QUICK)
    parts.trash.button.click(desk.empty, parts.trash.asked, changing, **QUICK)
    parts.upload.upload(desk.bring_in, [parts.upload, parts.name, parts.token], changing, **slow).then(
        fresh, None, outputs, **QUICK
    )
    gr.on(
        [parts.add.click, parts.sum.submit],
        desk.near,
        parts.sum,
        [parts.near, parts.notice],
        **QUICK,
    )
    parts.keep.click(desk.keep, [parts.sum, parts.sum_name], [*desk.opening, parts.sum_name], **QUICK).then(
        fresh, None, outputs, **QUICK
    )
    prompt, tabs = house.places["form"]["prompt"], house.tabs
    assert tabs is not None

    def use(name: str, written: str) -> Answer:
        word = f"<{name}>"
        if not (written or "").strip():
            return {prompt: f"a picture of {word}", tabs: gr.Tabs(selected="generate")}
        return {prompt: f"{written.rstrip()} {word}", tabs: gr.Tabs(selected="generate")}

    parts.use.click(use, [parts.chosen, prompt], [prompt, tabs], **QUICK)


def _told(handler: Callable[..., Answer]) -> Callable[..., Answer]:
    """A handler whose errors are words on the page."""

    @functools.wraps(handler)
    def safe(self: _Desk, *values: Any) -> Answer:
        try:
            return handler(self, *values)
        except Exception as error:
            return {self.parts.notice: error_notice(error)}

    return safe


class _Desk:
    """The handlers; `opening` are the components that show the table and the open token."""

    def __init__(self, house: House, parts: Parts):
        self.jobs, self.model, self.parts = house.jobs, house.settings.model, parts
        self.folder = house.jobs.embeddings
        self.files = Path(os.environ["GRADIO_TEMP_DIR"]) / "exports"  # what the page may hand out
        self.opening = [
            parts.table,
            parts.panel,
            parts.facts,
            parts.kind,
            parts.file,
            parts.chosen,
            parts.notice,
            *parts.trash.parts,
        ]

    @_told
    def enter(self, name: str) -> Answer:
        return self._shown(name)

    @_told
    def pick(self, event: gr.EventData) -> Answer:
        """Open the token whose row was chosen."""
        return self._shown(str(event.name))

    @_told
    def hand_out(self, kind: str | None, name: str) -> Answer:
        """Write the file for another program, ready to be downloaded."""
        if not kind:
            return {self.parts.file: gr.update(visible=False)}
        path = tokens.export_token(self.folder, name, kind, self.files)
        update = gr.update(value=str(path), label=f"Download {path.name}", visible=True)
        return {self.parts.file: update, self.parts.notice: ""}

    @_told
    def bring_in(self, path: str | None, name: str, token: str) -> Answer:
        """Keep an uploaded file as a token, and open it."""
        if not path:
            return {}
        found = tokens.import_token(self.folder, Path(path), name.strip(), token.strip())
        words = html.render_notice(f"{found.name} is here: write <{found.name}> in a prompt.")
        return self._shown(found.name) | {
            self.parts.notice: words,
            self.parts.name: "",
            self.parts.token: "",
        }

    @_told
    def near(self, expression: str) -> Answer:
        """The words nearest to a sum."""
        if not expression.strip():
            raise UsageError("there is nothing to add", 'write for example "cat - red + blue"')
        near, _ = tokens.combine(self.folder, self._known(), expression)
        return {self.parts.near: tokens_html.render_nearest(near), self.parts.notice: ""}

    @_told
    def keep(self, expression: str, name: str) -> Answer:
        """Keep a sum as a token."""
        if fault := embeddings.name_error(name.strip()):
            raise UsageError(f"the name {name[:60]!r} {fault}", "give it one, like blue_cat")
        _, found = tokens.combine(self.folder, self._known(), expression)
        kept = tokens.add_token(
            self.folder,
            embeddings.LearnedToken(
                name.strip(),
                f"<{name.strip()}>",
                found.vectors,
                found.metadata | {"base_model": Path(self.model).name},
            ),
        )
        return self._shown(kept.name) | {self.parts.sum_name: ""}

    @_told
    def remove(self, name: str, removed: list[str]) -> Answer:
        """Put a token away; it can be taken back."""
        kept = tokens.remove(self.folder, name)
        words = html.render_notice(f"{name} is removed.", "Undo brings it back.")
        return self._shown("") | {
            self.parts.notice: words,
            self.parts.undo: gr.update(visible=True),
            self.parts.removed: [*removed, kept],
        }

    @_told
    def undo(self, removed: list[str]) -> Answer:
        """Take back the token that was removed last."""
        if not removed:
            raise UsageError("there is nothing to take back", "remove something first")
        *before, kept = removed
        name = tokens.restore(self.folder, kept)
        return self._shown(name) | {
            self.parts.notice: html.render_notice(f"{name} is back."),
            self.parts.removed: before,
            self.parts.undo: gr.update(visible=bool(before)),
        }

    @_told
    def empty(self, asked: str) -> Answer:
        """Delete for good what was removed, when it is asked for twice."""
        answer, gone = self.parts.trash.press(asked, self.parts.notice)
        if gone:
            answer |= {self.parts.undo: gr.update(visible=False), self.parts.removed: []}
        return answer

    def _known(self) -> embeddings.Vocabulary:
        if not self.jobs.is_ready:  # transformers may not be imported by two threads at once
            raise UsageError("the model is still being loaded", "try again in a moment")
        return prompt_info.load_vocabulary(self.model)

    def _shown(self, name: str) -> Answer:
        """The table, and the token of that name beside it."""
        known = prompt_info.load_vocabulary(self.model) if self.jobs.is_ready else None
        rows = list(tokens.list_tokens(self.folder, known))
        chosen = next((row for row in rows if row.name == name and not row.error), None)
        parts = self.parts
        answer: Answer = {
            parts.table: tokens_html.render_table(rows, name),
            parts.panel: gr.update(visible=chosen is not None),
            parts.chosen: name if chosen else "",
            parts.kind: None,
            parts.file: gr.update(visible=False),
            parts.notice: "",
        } | parts.trash.fresh()
        if chosen:
            answer[parts.facts] = tokens_html.render_card(embeddings.load_token(name, self.folder), chosen, self.folder)
        return answer
