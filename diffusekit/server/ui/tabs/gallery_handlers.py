"""What happens in the Gallery tab: the handlers of its events, over an album and its components.

Every handler returns what the page shows next, by component; none raises. Knows no other tab.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ....errors import UsageError
from ...storage.gallery import Gallery, GalleryEntry
from ...storage.similarity import ImageSearch
from .. import html
from ..context import error_notice
from ..trash_button import TrashButton
from . import gallery_facts, gallery_html
from .generate_restore import RestoreMode

PAGE = 48  # thumbnails on the page at first, and added by "More"
LIKE = 48  # pictures that a search by likeness finds
WORDS, LIKENESS = "Words", "Likeness"
EMPTY = "No picture here yet: make one in the Generate tab."
NONE = "No picture fits. Fewer words find more; Likeness looks at the pictures themselves."
Row = tuple[str, float, str]  # path below the outputs folder, time, prompt
Answer = dict[Any, Any]


@dataclass
class Shown:
    """The components of the tab, and what the server remembers of one visitor."""

    words: gr.Textbox
    how: gr.Radio
    starred: gr.Checkbox
    like: gr.UploadButton
    pictures: gr.HTML
    more: gr.Button
    notice: gr.HTML
    undo: gr.Button
    open: gr.Column
    image: gr.Image
    slider: gr.ImageSlider
    facts: gr.HTML
    star: gr.Button
    compare: gr.Button
    alike: gr.Button
    delete: gr.Button
    use: dict[RestoreMode, gr.Button]
    trash: TrashButton
    found: gr.State  # rows
    count: gr.State  # how many of them are on the page
    name: gr.State  # the picture that is open
    pinned: gr.State  # the one it is compared with
    thrown: gr.State  # [(what takes it back, place, row)], the latest last


def _told(handler: Callable[..., Answer]) -> Callable[..., Answer]:
    """A handler whose errors are words on the page."""

    @functools.wraps(handler)
    def safe(self: Desk, *values: Any) -> Answer:
        try:
            return handler(self, *values)
        except Exception as error:
            return {self.tab.notice: error_notice(error)}

    return safe


class Desk:
    """Handlers; `listing` and `opening` are the components that they change."""

    def __init__(self, album: Gallery, likeness: ImageSearch, tab: Shown):
        self.album, self.likeness, self.tab = album, likeness, tab
        self.listing = [
            tab.pictures,
            tab.more,
            tab.notice,
            tab.found,
            tab.count,
            *tab.trash.parts,
        ]
        self.opening = [
            tab.open,
            tab.image,
            tab.slider,
            tab.facts,
            tab.star,
            tab.compare,
            tab.name,
            tab.pinned,
            tab.notice,
        ]

    # --- finding ----------------------------------------------------------------------------

    @_told
    def typed(self, words: str, how: str, starred: bool, name: str) -> Answer:
        """Pictures by the words of their prompts; a phrase for likeness waits for Enter."""
        words = (words or "").strip()
        if how == LIKENESS and words:
            return {self.tab.notice: html.render_notice("Press Enter to look.")}
        found = self.album.search(words, starred=starred)
        plain = not words and not starred
        return self._list(_rows(found), PAGE, name, empty=EMPTY if plain else NONE)

    def search(self, words: str, how: str, starred: bool, name: str) -> Iterator[Answer]:
        """Pictures by the words of their prompts, or by what they look like."""
        words = (words or "").strip()
        if how != LIKENESS or not words:
            yield self.typed(words, how, starred, name)
            return
        try:
            yield from self._alike(words, f"The likest to “{words}” first.", name, starred)
        except Exception as error:
            yield {self.tab.notice: error_notice(error)}

    def like_file(self, path: str | None, name: str) -> Iterator[Answer]:
        """Pictures that look like one from elsewhere."""
        if path:
            yield from self._told_alike(Path(path), "The likest to your picture first.", name)

    def like_shown(self, name: str) -> Iterator[Answer]:
        """Pictures that look like the one that is open."""
        if name:
            path = self.album.outputs / name
            yield from self._told_alike(path, "The likest to the open picture first.", name)

    def more(self, found: list[Row], count: int, name: str) -> Answer:
        return self._list(found, count + PAGE, name)

    def _told_alike(self, wanted: Path, words: str, name: str) -> Iterator[Answer]:
        try:
            yield from self._alike(wanted, words, name)
        except Exception as error:
            yield {self.tab.notice: error_notice(error)}

    def _alike(self, wanted: str | Path, words: str, name: str, starred: bool = False) -> Iterator[Answer]:
        entries = self.album.search(starred=starred)
        for done, count in self.likeness.index(entries):
            yield {self.tab.notice: html.render_notice(f"Looking at new pictures: {done} of {count} …")}
        ranked = self.likeness.rank(entries, wanted)[:LIKE]
        shown = self._list(_rows([entry for _, entry in ranked]), PAGE, name)
        yield shown | {self.tab.notice: html.render_notice(words if ranked else NONE)}

    def _list(self, found: list[Row], count: int, name: str, *, empty: str = NONE) -> Answer:
        stars = self.album.stars()
        inside = gallery_html.render_thumbnails(self.album.outputs, found[:count], stars=stars, shown=name)
        more = len(found) - count
        return {
            self.tab.pictures: gallery_html.render_grid(inside, empty),
            self.tab.more: gr.update(visible=more > 0, value=f"More ({more})"),
            self.tab.notice: "",
            self.tab.found: found,
            self.tab.count: count,
        } | self.tab.trash.fresh()

    # --- looking ----------------------------------------------------------------------------

    @_told
    def pick(self, pinned: str, event: gr.EventData) -> Answer:
        """Open the picture whose thumbnail was chosen."""
        return self._open(str(event.name), pinned)

    @_told
    def compare(self, name: str, pinned: str) -> Answer:
        """Hold on to the open picture, and show the next one beside it; or let go."""
        if pinned:
            return self._open(name, "")
        words = html.render_notice("Now choose another picture: both lie under one slider.")
        return self._open(name, name) | {self.tab.notice: words}

    def _open(self, name: str, pinned: str) -> Answer:
        path = self.album.path_of(name)
        both = bool(pinned) and pinned != name
        other = self.album.path_of(pinned) if both else None
        return {
            self.tab.open: gr.update(visible=True),
            self.tab.image: gr.update(value=str(path), alt_text=gallery_facts.prompt_of(path)[:500], visible=not both),
            self.tab.slider: gr.update(value=(str(other), str(path)) if both else None, visible=both),
            self.tab.facts: gallery_facts.render_details(path, name),
            self.tab.star: _star_label(name in self.album.stars()),
            self.tab.compare: "Stop comparing" if pinned else "Compare",
            self.tab.name: name,
            self.tab.pinned: pinned,
            self.tab.notice: "",
        }

    # --- tidying ----------------------------------------------------------------------------

    @_told
    def star(self, name: str, found: list[Row], count: int) -> Answer:
        starred = self.album.toggle_star(name)
        return self._list(found, count, name) | {self.tab.star: _star_label(starred)}

    @_told
    def delete(self, name: str, found: list[Row], count: int, thrown: list[tuple[str, int, Row]]) -> Answer:
        """Move the open picture to the trash and open its neighbour."""
        kept = self.album.move_to_trash(name)
        place = next((i for i, row in enumerate(found) if row[0] == name), 0)
        row = found[place] if found and found[place][0] == name else (name, 0.0, "")
        found = [other for other in found if other[0] != name]
        near = found[min(place, len(found) - 1)][0] if found else ""
        words = html.render_notice("Moved to the trash.", Path(name).name)
        return (
            self._list(found, count, near, empty=EMPTY)
            | (self._open(near, "") if near else self._shut())
            | {self.tab.notice: words, self.tab.undo: gr.update(visible=True)}
            | {self.tab.thrown: [*thrown, (kept, place, row)]}
        )

    @_told
    def undo(self, name: str, found: list[Row], count: int, thrown: list[tuple[str, int, Row]]) -> Answer:
        """Take the picture back that was thrown away last."""
        if not thrown:
            raise UsageError("there is nothing to take back", "delete something first")
        *before, (kept, place, row) = thrown
        back = self.album.restore(kept)
        found = [*found[:place], row, *found[place:]]
        return (
            self._list(found, count, back)
            | self._open(back, "")
            | {self.tab.notice: html.render_notice("It is back."), self.tab.thrown: before}
            | {self.tab.undo: gr.update(visible=bool(before))}
        )

    @_told
    def empty(self, asked: str) -> Answer:
        """Delete for good what was thrown away, when it is asked for twice."""
        answer, gone = self.tab.trash.press(asked, self.tab.notice)
        if gone:
            answer |= {self.tab.undo: gr.update(visible=False), self.tab.thrown: []}
        return answer

    def _shut(self) -> Answer:
        return {self.tab.open: gr.update(visible=False), self.tab.name: "", self.tab.pinned: ""}


def _rows(found: Sequence[GalleryEntry]) -> list[Row]:
    return [(entry.path, entry.changed, entry.prompt) for entry in found]


def _star_label(starred: bool) -> str:
    return "★ Starred" if starred else "☆ Star"
