"""Handlers of the Gallery tab: search, open, compare, star, delete, and restore settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from ....errors import UsageError
from ...storage.gallery import GalleryEntry
from ...storage.similarity import ImageSearch
from ..context import PRIVATE, QUICK, Updates, error_notice, errors_as_notice
from ..html import render_notice
from . import gallery_html, restore
from .gallery import BY_SIMILARITY, PAGE
from .page import Page

SIMILAR = 48  # images that a search by similarity finds
EMPTY = "No images yet. Generate one in the Generate tab."
NOT_FOUND = "No image matches. Use fewer words, or search by similarity, which looks at the images themselves."
Row = tuple[str, float, str]  # path below the outputs folder, time, prompt


class GalleryHandlers:
    """Handlers return what the page shows next, by component. None of them raises.

    `listing` and `opening` are the components that show the thumbnails and the open image.
    """

    def __init__(self, page: Page):
        self.page, self.tab, self.open = page, page.gallery, page.gallery.open
        self.jobs, self.gallery, self.notice = page.context.jobs, page.context.gallery, page.gallery.notice
        cache = Path(page.context.settings.state) / "likeness.safetensors"
        self.similarity = ImageSearch(self.jobs.models, self.jobs.outputs, cache)
        tab, image = self.tab, self.open
        self.listing: list[Any] = [tab.thumbnails, tab.more, tab.notice, tab.rows, tab.count, *tab.trash.components]
        self.opening: list[Any] = [image.column, image.image, image.slider, image.details, image.star, image.compare]
        self.opening += [tab.name, tab.pinned, tab.notice]

    def connect(self) -> None:
        """Connect the events of the tab to their handlers."""
        tab, search, image = self.tab, self.tab.search, self.open
        slow: dict[str, Any] = PRIVATE | {"show_progress": "hidden", "concurrency_limit": 4}
        asked = [search.query, search.by, search.starred, tab.name]
        changes = [search.query.submit, search.by.change, search.starred.change]
        gr.on(changes, self.on_search, asked, self.listing, trigger_mode="multiple", **slow)
        search.query.change(self.on_type, asked, self.listing, trigger_mode="always_last", **QUICK)
        tab.tab.select(self.on_type, asked, self.listing, **QUICK)
        search.similar.upload(self.on_upload, [search.similar, tab.name], self.listing, **slow)
        image.similar.click(self.on_find_similar, tab.name, self.listing, **slow)
        tab.more.click(self.on_more, [tab.rows, tab.count, tab.name], self.listing, **QUICK)

        tab.thumbnails.pick(self.on_select, tab.pinned, self.opening, **QUICK)
        image.compare.click(self.on_compare, [tab.name, tab.pinned], self.opening, **QUICK)
        shown = [tab.name, tab.rows, tab.count]
        image.star.click(self.on_star, shown, [*self.listing, image.star], **QUICK)
        everything = list(dict.fromkeys([*self.listing, *self.opening, tab.deleted, tab.undo]))
        image.delete.click(self.on_delete, [*shown, tab.deleted], everything, **QUICK)
        tab.undo.click(self.on_undo, [*shown, tab.deleted], everything, **QUICK)
        tab.trash.button.click(self.on_empty_trash, tab.trash.asked, everything, **QUICK)

        form = self.page.generate.form
        restored = [*form.inputs, self.page.generate.notice, tab.notice, self.page.tabs]
        for mode, button in image.restore.items():
            button.click(self.restore_handler(mode), tab.name, restored, **QUICK)

    # --- searching --------------------------------------------------------------------------

    @errors_as_notice
    def on_type(self, query: str, by: str, starred: bool, name: str) -> Updates:
        """Search prompts while the visitor types. A search by similarity waits for Enter."""
        query = (query or "").strip()
        if by == BY_SIMILARITY and query:
            return {self.tab.notice: render_notice("Press Enter to search.")}
        entries = self.gallery.search(query, starred=starred)
        return self.list_images(to_rows(entries), PAGE, name, empty=NOT_FOUND if query or starred else EMPTY)

    def on_search(self, query: str, by: str, starred: bool, name: str) -> Iterator[Updates]:
        """Search by the words of the prompts, or by what the images look like."""
        query = (query or "").strip()
        if by != BY_SIMILARITY or not query:
            yield self.on_type(query, by, starred, name)
        else:
            yield from self.rank(query, f"Most similar to “{query}” first.", name, starred=starred)

    def on_upload(self, path: str | None, name: str) -> Iterator[Updates]:
        """Find images that are similar to an uploaded one."""
        if path:
            yield from self.rank(Path(path), "Most similar to the uploaded image first.", name)

    def on_find_similar(self, name: str) -> Iterator[Updates]:
        """Find images that are similar to the open one."""
        if name:
            yield from self.rank(self.jobs.outputs / name, "Most similar to the open image first.", name)

    def on_more(self, rows: list[Row], count: int, name: str) -> Updates:
        return self.list_images(rows, count + PAGE, name)

    def rank(self, query: str | Path, message: str, name: str, *, starred: bool = False) -> Iterator[Updates]:
        """Index new images, then list all by similarity to a text or an image file."""
        try:
            entries = self.gallery.search(starred=starred)
            for done, count in self.similarity.index(entries):
                yield {self.tab.notice: render_notice(f"Indexing new images: {done} of {count} …")}
            ranked = [entry for _, entry in self.similarity.rank(entries, query)[:SIMILAR]]
            notice = render_notice(message if ranked else NOT_FOUND)
            yield self.list_images(to_rows(ranked), PAGE, name) | {self.tab.notice: notice}
        except Exception as error:
            yield {self.tab.notice: error_notice(error)}

    def list_images(self, rows: list[Row], count: int, name: str, *, empty: str = NOT_FOUND) -> Updates:
        tab, remaining = self.tab, len(rows) - count
        thumbnails = gallery_html.render_thumbnails(
            self.jobs.outputs, rows[:count], stars=self.gallery.stars(), opened=name
        )
        return {
            tab.thumbnails: gallery_html.render_grid(thumbnails, empty),
            tab.more: gr.update(visible=remaining > 0, value=f"Load more ({remaining})"),
            tab.notice: "",
            tab.rows: rows,
            tab.count: count,
        } | tab.trash.reset()

    # --- the open image ---------------------------------------------------------------------

    @errors_as_notice
    def on_select(self, pinned: str, event: gr.EventData) -> Updates:
        """Open the image whose thumbnail was clicked."""
        return self.open_image(str(event.name), pinned)

    @errors_as_notice
    def on_compare(self, name: str, pinned: str) -> Updates:
        """Pin the open image, so that the next one is shown beside it; or unpin it."""
        if pinned:
            return self.open_image(name, "")
        message = render_notice("Choose another image. Both are shown under one slider.")
        return self.open_image(name, name) | {self.tab.notice: message}

    def open_image(self, name: str, pinned: str) -> Updates:
        image, tab = self.open, self.tab
        path = self.gallery.path_of(name)
        other = self.gallery.path_of(pinned) if pinned and pinned != name else None
        alt = gallery_html.prompt_of(path)[:500]
        return {
            image.column: gr.update(visible=True),
            image.image: gr.update(value=str(path), alt_text=alt, visible=not other),
            image.slider: gr.update(value=(str(other), str(path)) if other else None, visible=bool(other)),
            image.details: gallery_html.render_details(path, name),
            image.star: star_label(name in self.gallery.stars()),
            image.compare: "Stop comparing" if pinned else "Compare",
            tab.name: name,
            tab.pinned: pinned,
            tab.notice: "",
        }

    def close_image(self) -> Updates:
        return {self.open.column: gr.update(visible=False), self.tab.name: "", self.tab.pinned: ""}

    def restore_handler(self, mode: restore.RestoreMode) -> Any:
        """The handler of a button that puts the settings of the open image into the Generate form."""

        def on_restore(name: str) -> Updates:
            try:
                path = self.gallery.path_of(name)
                updates = restore.form_updates(self.jobs, path, mode, self.page.generate.form.fields)
                notice = restore.restore_notice(self.jobs, path, mode)
                return updates | {self.page.generate.notice: notice} | self.page.open_tab("generate")
            except Exception as error:
                return {self.tab.notice: error_notice(error)}

        return on_restore

    # --- stars and trash --------------------------------------------------------------------

    @errors_as_notice
    def on_star(self, name: str, rows: list[Row], count: int) -> Updates:
        is_starred = self.gallery.toggle_star(name)
        return self.list_images(rows, count, name) | {self.open.star: star_label(is_starred)}

    @errors_as_notice
    def on_delete(self, name: str, rows: list[Row], count: int, deleted: list[tuple[str, int, Row]]) -> Updates:
        """Move the open image to the trash, and open its neighbor."""
        trash_id = self.gallery.move_to_trash(name)
        index = next((i for i, row in enumerate(rows) if row[0] == name), 0)
        row = rows[index] if rows and rows[index][0] == name else (name, 0.0, "")
        rows = [other for other in rows if other[0] != name]
        neighbor = rows[min(index, len(rows) - 1)][0] if rows else ""
        return (
            self.list_images(rows, count, neighbor, empty=EMPTY)
            | (self.open_image(neighbor, "") if neighbor else self.close_image())
            | {self.tab.notice: render_notice("Moved to the trash.", Path(name).name)}
            | {self.tab.undo: gr.update(visible=True), self.tab.deleted: [*deleted, (trash_id, index, row)]}
        )

    @errors_as_notice
    def on_undo(self, name: str, rows: list[Row], count: int, deleted: list[tuple[str, int, Row]]) -> Updates:
        """Restore the image that was deleted last."""
        if not deleted:
            raise UsageError("there is nothing to restore", "delete an image first")
        *before, (trash_id, index, row) = deleted
        restored = self.gallery.restore(trash_id)
        return (
            self.list_images([*rows[:index], row, *rows[index:]], count, restored)
            | self.open_image(restored, "")
            | {self.tab.notice: render_notice("Restored.", Path(restored).name), self.tab.deleted: before}
            | {self.tab.undo: gr.update(visible=bool(before))}
        )

    @errors_as_notice
    def on_empty_trash(self, asked: str) -> Updates:
        """Delete what is in the trash permanently, on the second press."""
        updates, is_empty = self.tab.trash.press(asked, self.tab.notice)
        if is_empty:
            updates |= {self.tab.undo: gr.update(visible=False), self.tab.deleted: []}
        return updates


def to_rows(entries: Sequence[GalleryEntry]) -> list[Row]:
    return [(entry.path, entry.changed, entry.prompt) for entry in entries]


def star_label(is_starred: bool) -> str:
    return "★ Starred" if is_starred else "☆ Star"
