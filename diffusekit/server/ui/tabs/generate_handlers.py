"""Handlers of the Generate tab: generate images and grids, restore settings, keep the form consistent."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from ....errors import DiffusekitError
from ....settings import FAST_DEFAULTS, GenerateSettings, validate
from ....visualise import xyz_grid
from .. import progress, prompt_info
from ..context import QUICK, UNLIMITED, Updates, error_notice, errors_as_notice
from ..html import render_notice, render_stage
from ..progress import ProgressUpdate, VisitorJob
from . import generate_form, generate_html, restore, start_form
from .page import Page


class GenerateHandlers:
    """Handlers return what the page shows next, by component. None of them raises."""

    def __init__(self, page: Page):
        self.jobs, self.tab, self.form = page.context.jobs, page.generate, page.generate.form
        self.has_api = not page.context.settings.no_api
        self.notice = self.tab.notice
        tab = self.tab
        self.generating: list[Any] = [tab.generate, tab.stop, tab.grid.generate, tab.stage, tab.result, tab.actions]
        self.generating += [tab.notice, self.form.prompt, tab.visitor, tab.names, tab.chosen]

    def connect(self) -> None:
        """Connect the events of the tab to their handlers."""
        tab, form, fields = self.tab, self.form, self.form.fields
        asked = [*form.inputs, *tab.start.inputs]
        tab.generate.click(self.on_generate, [tab.names, *asked], self.generating, **UNLIMITED)
        size = [fields["width"], fields["height"]]
        started = [tab.start.editor, *size]
        tab.use_start.click(self.on_use_start, [tab.names, tab.chosen], started, **QUICK)
        tab.start.editor.upload(lambda: (None, None), None, size, **QUICK)  # the size is then that of the image
        inputs = [tab.names, *tab.grid.inputs, *asked]
        tab.grid.generate.click(self.on_generate_grid, inputs, self.generating, **UNLIMITED)
        tab.stop.click(progress.stop_handler(self.jobs), tab.visitor, None, **QUICK)
        tab.result.select(self.on_select, None, tab.chosen, **QUICK)

        restored = [*form.inputs, tab.notice]
        tab.upload.upload(self.on_upload, tab.upload, restored, **QUICK)
        for mode, button in tab.restore.items():
            button.click(self.restore_handler(mode), [tab.names, tab.chosen], restored, **QUICK)
        form.reuse_seed.click(self.on_reuse_seed, [tab.names, tab.chosen], [fields["seed"], tab.notice], **QUICK)

        counted = [fields[name] for name in ("prompt", "embedding", "model", "prompt_syntax")]
        changes = [field.change for field in counted]
        gr.on(changes, self.count_tokens, counted, tab.token_count, trigger_mode="always_last", **QUICK)
        form.random_seed.click(lambda: "", None, fields["seed"], **QUICK)
        form.swap_size.click(lambda width, height: (height, width), size, size, **QUICK)
        suited = [*(fields[name] for name in FAST_DEFAULTS), *size, fields["fast"]]
        form.refresh_models.click(self.on_refresh_models, fields["model"], fields["model"], **QUICK)
        fields["model"].input(self.on_model, fields["model"], suited, **QUICK)
        fast_fields = [fields[name] for name in FAST_DEFAULTS]
        fields["fast"].input(self.on_fast, [fields["fast"], fields["model"]], fast_fields, **QUICK)
        if self.has_api:
            self.connect_api()

    # --- generating -------------------------------------------------------------------------

    async def on_generate(self, before: list[str], *values: Any) -> AsyncGenerator[Updates]:
        """Generate the images of the form; `before` are the names of the images that are shown now."""
        given = generate_form.read_form(values[: len(generate_form.FIELDS)])
        visitor = VisitorJob()
        yield self.start(given["prompt"], visitor)
        try:
            settings = generate_form.settings_from_form(given)
            settings |= await self.read_start(values)
        except DiffusekitError as error:
            yield self.fail(error, before)
            return
        async with contextlib.aclosing(
            self.show(progress.follow_images(self.jobs, settings, visitor), before)
        ) as updates:
            async for update in updates:
                yield update

    async def on_generate_grid(self, before: list[str], *values: Any) -> AsyncGenerator[Updates]:
        """Generate an image for each cell of the grid, and the sheet with all of them."""
        count = len(self.tab.grid.inputs)
        given = generate_form.read_form(values[count:][: len(generate_form.FIELDS)])
        visitor = VisitorJob()
        yield self.start(given["prompt"], visitor)
        try:
            axes, cells, settings = parse_grid(values[:count], given)
            start = await self.read_start(values[count:])
            cells = [replace(cell, settings={**start, **cell.settings}) for cell in cells]
        except DiffusekitError as error:
            yield self.fail(error, before)
            return
        grid = progress.follow_grid(self.jobs, axes, cells, settings, visitor)
        async with contextlib.aclosing(self.show(grid, before)) as updates:
            async for update in updates:
                yield update

    async def read_start(self, values: Sequence[Any]) -> dict[str, Any]:
        """The start image and mask behind the fields of the form, as settings of a job."""
        behind = values[len(generate_form.FIELDS) :]
        return await asyncio.to_thread(start_form.read_start, behind, self.jobs.settings)

    def on_use_start(self, names: list[str], chosen: int) -> tuple[Any, ...]:
        """Put the chosen image into the editor of the start image. The size is then that of the image."""
        return (start_form.start_from(self.chosen_path(names, chosen)), None, None) if names else (gr.skip(),) * 3

    async def show(
        self, progress_updates: AsyncGenerator[ProgressUpdate], before: list[str]
    ) -> AsyncGenerator[Updates]:
        """Turn progress into updates of the page."""
        try:
            async with contextlib.aclosing(progress_updates):
                async for update in progress_updates:
                    yield self.finish(update) if update.is_finished else self.stage(update)
        except Exception as error:
            yield self.fail(error, before)

    def start(self, prompt: str, visitor: VisitorJob) -> Updates:
        tab = self.tab
        return self.busy(True) | {
            tab.stage: gr.update(value=render_stage((), None, "starting …"), visible=True),
            tab.result: gr.update(visible=False),
            tab.actions: gr.update(visible=False),
            tab.notice: "",
            self.form.prompt: prompt,
            tab.visitor: visitor,
        }

    def stage(self, update: ProgressUpdate) -> Updates:
        return {self.tab.stage: render_stage(update.previews, update.fraction, update.status)}

    def finish(self, update: ProgressUpdate) -> Updates:
        """Show the finished images. If there are none, the last preview stays."""
        tab = self.tab
        remembered = {tab.names: list(update.images), tab.chosen: 0}
        if not update.images:
            return (
                self.busy(False) | self.stage(update) | remembered | {tab.notice: warnings_notice("", update.warnings)}
            )
        images = [(str(self.jobs.outputs / name), update.prompt) for name in update.images]
        return (
            self.busy(False)
            | remembered
            | {
                tab.stage: gr.update(visible=False),
                tab.result: gr.update(value=images, selected_index=0, visible=True),
                tab.actions: gr.update(visible=True),
                tab.notice: warnings_notice(update.status, update.warnings),
            }
        )

    def fail(self, error: Exception, before: list[str]) -> Updates:
        """Show an error, and the images that were there before."""
        tab, has_images = self.tab, bool(before)
        return self.busy(False) | {
            tab.stage: gr.update(value=generate_html.WELCOME, visible=not has_images),
            tab.result: gr.update(visible=has_images),
            tab.actions: gr.update(visible=has_images),
            tab.notice: error_notice(error),
        }

    def busy(self, is_busy: bool) -> Updates:
        return {
            self.tab.generate: gr.update(visible=not is_busy),
            self.tab.stop: gr.update(visible=is_busy),
            self.tab.grid.generate: gr.update(interactive=not is_busy),
        }

    # --- restoring --------------------------------------------------------------------------

    def on_select(self, event: gr.SelectData) -> int:
        return int(event.index)

    @errors_as_notice
    def on_upload(self, path: str | None) -> Updates:
        """Restore all settings of a file."""
        return self.restore_settings(Path(path), "all") if path else {self.tab.notice: ""}

    def restore_handler(self, mode: restore.RestoreMode) -> Any:
        """The handler of a button below the result."""

        def on_restore(names: list[str], chosen: int) -> Updates:
            try:
                return self.restore_settings(self.chosen_path(names, chosen), mode)
            except Exception as error:
                return {self.tab.notice: error_notice(error)}

        return on_restore

    @errors_as_notice
    def on_reuse_seed(self, names: list[str], chosen: int) -> Updates:
        """Put the seed of the chosen image into the form."""
        if not names:
            return {self.tab.notice: render_notice("There is no image yet.", "generate one first")}
        return self.restore_settings(self.chosen_path(names, chosen), "seed")

    def restore_settings(self, path: Path, mode: restore.RestoreMode) -> Updates:
        updates = restore.form_updates(self.jobs, path, mode, self.form.fields)
        return updates | {self.tab.notice: restore.restore_notice(self.jobs, path, mode)}

    def chosen_path(self, names: Sequence[str], chosen: int) -> Path:
        return self.jobs.outputs / names[min(chosen, len(names) - 1)]

    # --- the form ---------------------------------------------------------------------------

    def count_tokens(self, prompt: str, embedding: list[str], model: str, syntax: str) -> str:
        """The token counter below the prompt. In A1111's syntax no token is too many."""
        # transformers must not be imported by two threads at once: the worker's import comes first
        if not (prompt or "").strip() or not self.jobs.is_ready or syntax != "plain":
            return ""
        try:
            count = prompt_info.count_tokens(self.model_of(model), prompt, embedding or (), self.jobs.embeddings)
        except DiffusekitError as error:
            return render_notice(error.message, error.hint)
        return generate_html.render_token_count(count)

    def on_model(self, model: str) -> tuple[Any, ...]:
        """Steps, guidance scale, sampler, width, height and Fast that suit a model."""
        try:
            info = prompt_info.describe_model(self.model_of(model))
        except (DiffusekitError, OSError, ValueError, KeyError):
            return (gr.skip(),) * 6
        fast = gr.update(visible=info.has_fast_lora, value=False)
        return *self.suited(model), info.native_size, info.native_size, fast

    def on_refresh_models(self, model: str) -> Any:
        """Offer the models that are here now; one that is gone is not chosen any more."""
        names = list(self.jobs.models.names())
        return gr.update(choices=names, value=model if model in names else names[0])

    def on_fast(self, is_fast: bool, model: str) -> list[Any]:
        """The settings that Fast changes: its own, or the model's defaults."""
        if is_fast:
            return list(FAST_DEFAULTS.values())
        return list(self.suited(model))

    def suited(self, model: str) -> tuple[Any, ...]:
        """What suits a model, for the settings of `FAST_DEFAULTS`."""
        defaults = prompt_info.describe_model(self.model_of(model)).defaults
        return tuple(getattr(defaults, name) for name in FAST_DEFAULTS)

    def model_of(self, title: str) -> str:
        return self.jobs.models.names().get(title, title)

    # --- gradio_client ----------------------------------------------------------------------

    def connect_api(self) -> None:
        """Offer `generate` to gradio_client: the same settings, and the files of the finished images."""
        button, files = gr.Button(visible=False), gr.Gallery(visible=False, label="Images")

        async def generate(*values: Any) -> AsyncGenerator[Any]:
            given = generate_form.read_form(values)
            # Fast and another model decide about settings that the client left at the form's own value
            is_other = given["model"] != self.form.fields["model"].value
            if given["fast"] or is_other:
                names = (*FAST_DEFAULTS, *(("width", "height") if is_other else ()))
                unchanged = {name for name in names if given[name] == self.form.fields[name].value}
                given = {name: value for name, value in given.items() if name not in unchanged}
            try:
                updates = progress.follow_images(self.jobs, generate_form.settings_from_form(given))
                async with contextlib.aclosing(updates):
                    async for update in updates:
                        for sentence in generate_form.spell_labels(update.warnings):
                            gr.Warning(sentence)
                        yield [str(self.jobs.outputs / name) for name in update.images]
            except DiffusekitError as error:
                raise gr.Error(f"{error.message}; {error.hint}") from None

        parameters = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in generate_form.FIELDS]
        generate.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        button.click(
            generate,
            self.form.inputs,
            files,
            api_name="generate",
            api_visibility="public",
            api_description="Generate images from a prompt. Every setting but the prompt may be left out.",
            concurrency_limit=None,
        )


def warnings_notice(status: str, warnings: Sequence[str]) -> str:
    """The status of a finished job, and a line for each warning about it."""
    lines = generate_form.spell_labels(warnings)
    return "".join(render_notice(text) for text in (status, *lines) if text)


def parse_grid(
    axes_and_values: Sequence[Any], given: Mapping[str, Any]
) -> tuple[list[xyz_grid.Axis | None], list[xyz_grid.GridCell], dict[str, Any]]:
    """Axes, cells with validated settings, and the settings of the whole grid."""
    pairs = zip(axes_and_values[::2], axes_and_values[1::2], strict=True)
    axes = [xyz_grid.parse_axis(name, text or "") if name else None for name, text in pairs]
    settings = {"seed": secrets.randbelow(2**32), "negative_prompt": ""} | generate_form.settings_from_form(given)
    cells = xyz_grid.grid_cells(axes, settings)
    for cell in cells:
        validate(GenerateSettings, cell.settings)
    return axes, cells, settings
