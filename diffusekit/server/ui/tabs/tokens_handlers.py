"""Handlers of the Tokens tab: list, open, import, export, combine and remove learned tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from .... import embeddings
from ....errors import UsageError
from ...storage import tokens
from .. import prompt_info
from ..context import QUICK, SLOW, Updates, errors_as_notice
from ..html import render_notice
from . import tokens_html
from .page import Page


class TokensHandlers:
    """Handlers return what the page shows next, by component. None of them raises.

    `opening` are the components that show the table and the open token.
    """

    def __init__(self, page: Page):
        self.page, self.tab, self.notice = page, page.tokens, page.tokens.notice
        self.jobs, self.folder = page.context.jobs, page.context.jobs.embeddings
        self.model = page.context.settings.model
        self.exports = page.context.cache / "exports"
        tab, token = self.tab, self.tab.open
        self.opening: list[Any] = [tab.table, token.column, token.details, token.format, token.file, tab.chosen]
        self.opening += [tab.notice, *tab.trash.components]

    def connect(self) -> None:
        """Connect the events of the tab to their handlers. The Generate tab learns of tokens that come and go."""
        tab, token, importing, combining = self.tab, self.tab.open, self.tab.importing, self.tab.combining
        form = self.page.generate.form
        tab.tab.select(self.on_open_tab, tab.chosen, self.opening, **SLOW)
        tab.table.pick(self.on_select, None, self.opening, **QUICK)
        token.format.input(self.on_export, [token.format, tab.chosen], [token.file, tab.notice], **SLOW)
        shown = [combining.show.click, combining.expression.submit]
        gr.on(shown, self.on_combine, combining.expression, [combining.nearest, tab.notice], **QUICK)
        used = [form.prompt, self.page.tabs]
        token.use.click(self.page.use_token, [tab.chosen, form.prompt], used, **QUICK)

        changing = [*self.opening, tab.undo, tab.removed, importing.name, importing.token]
        tab.trash.button.click(self.on_empty_trash, tab.trash.asked, changing, **QUICK)
        uploaded = [importing.upload, importing.name, importing.token]
        expression = [combining.expression, combining.name]
        for change in (
            token.remove.click(self.on_remove, [tab.chosen, tab.removed], changing, **QUICK),
            tab.undo.click(self.on_undo, tab.removed, changing, **QUICK),
            importing.upload.upload(self.on_import, uploaded, changing, **SLOW),
            combining.save.click(self.on_save_sum, expression, [*self.opening, combining.name], **QUICK),
        ):
            change.then(lambda: form.refresh_learned(self.folder), None, form.learned, **QUICK)

    @errors_as_notice
    def on_open_tab(self, name: str) -> Updates:
        return self.open_token(name)

    @errors_as_notice
    def on_select(self, event: gr.EventData) -> Updates:
        """Open the token whose row was clicked."""
        return self.open_token(str(event.name))

    @errors_as_notice
    def on_export(self, file_format: str | None, name: str) -> Updates:
        """Write the file for another program, ready for download."""
        if not file_format:
            return {self.tab.open.file: gr.update(visible=False)}
        path = tokens.export_token(self.folder, name, file_format, self.exports)
        update = gr.update(value=str(path), label=f"Download {path.name}", visible=True)
        return {self.tab.open.file: update, self.tab.notice: ""}

    @errors_as_notice
    def on_import(self, path: str | None, name: str, token: str) -> Updates:
        """Save an uploaded file as a token, and open it."""
        if not path:
            return {}
        imported = tokens.import_token(self.folder, Path(path), name.strip(), token.strip())
        message = render_notice(f"{imported.name} is imported. Write <{imported.name}> in a prompt.")
        fields = {self.tab.importing.name: "", self.tab.importing.token: ""}
        return self.open_token(imported.name) | {self.tab.notice: message} | fields

    @errors_as_notice
    def on_combine(self, expression: str) -> Updates:
        """Show the words nearest to a sum."""
        if not expression.strip():
            raise UsageError("the sum is empty", 'write for example "cat - red + blue"')
        nearest, _ = tokens.combine(self.folder, self.load_vocabularies(), expression)
        return {self.tab.combining.nearest: tokens_html.render_nearest(nearest), self.tab.notice: ""}

    @errors_as_notice
    def on_save_sum(self, expression: str, name: str) -> Updates:
        """Save a sum as a token."""
        name = name.strip()
        if error := embeddings.name_error(name):
            raise UsageError(f"the name {name[:60]!r} {error}", "choose one like blue_cat")
        _, total = tokens.combine(self.folder, self.load_vocabularies(), expression)
        metadata = total.metadata | {"base_model": Path(self.model).name}
        saved = tokens.add_token(self.folder, embeddings.LearnedToken(name, f"<{name}>", total.vectors, metadata))
        return self.open_token(saved.name) | {self.tab.combining.name: ""}

    @errors_as_notice
    def on_remove(self, name: str, removed: list[str]) -> Updates:
        """Move a token to the trash."""
        trash_id = tokens.remove(self.folder, name)
        return self.open_token("") | {
            self.tab.notice: render_notice(f"{name} is in the trash.", "Undo restores it."),
            self.tab.undo: gr.update(visible=True),
            self.tab.removed: [*removed, trash_id],
        }

    @errors_as_notice
    def on_undo(self, removed: list[str]) -> Updates:
        """Restore the token that was removed last."""
        if not removed:
            raise UsageError("there is nothing to restore", "remove a token first")
        *before, trash_id = removed
        name = tokens.restore(self.folder, trash_id)
        return self.open_token(name) | {
            self.tab.notice: render_notice(f"{name} is restored."),
            self.tab.removed: before,
            self.tab.undo: gr.update(visible=bool(before)),
        }

    @errors_as_notice
    def on_empty_trash(self, asked: str) -> Updates:
        """Delete what is in the trash permanently, on the second press."""
        updates, is_empty = self.tab.trash.press(asked, self.tab.notice)
        if is_empty:
            updates |= {self.tab.undo: gr.update(visible=False), self.tab.removed: []}
        return updates

    def load_vocabularies(self) -> tuple[embeddings.Vocabulary, ...]:
        if not self.jobs.is_ready:  # transformers must not be imported by two threads at once
            raise UsageError("the model is still being loaded", "try again in a moment")
        return prompt_info.load_vocabularies(self.model)

    def open_token(self, name: str) -> Updates:
        """The table, and the token of that name beside it; with an unknown name the table alone."""
        vocabularies = prompt_info.load_vocabularies(self.model) if self.jobs.is_ready else ()
        rows = list(tokens.list_tokens(self.folder, vocabularies))
        chosen = next((row for row in rows if row.name == name and not row.error), None)
        tab, token = self.tab, self.tab.open
        updates: Updates = {
            tab.table: tokens_html.render_table(rows, name),
            token.column: gr.update(visible=chosen is not None),
            tab.chosen: name if chosen else "",
            token.format: None,
            token.file: gr.update(visible=False),
            tab.notice: "",
        }
        if chosen:
            card = tokens_html.render_card(embeddings.load_token(name, self.folder), chosen, self.folder)
            updates[token.details] = card
        return updates | tab.trash.reset()
