"""The Generate tab: a prompt, a button that turns into Stop, a stage, and the settings folded away.

Lends in `house.places`: `form` (components by the names of their settings), `made` (a state: paths of the
finished pictures below the outputs folder) and `chosen` (a state: which of them is shown), `actions` (the
row of buttons below the result), `notice`, and `refresh` (a function and its outputs, for when learned
tokens came or went).
"""

from __future__ import annotations

import contextlib
import inspect
import secrets
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from ....errors import DiffusekitError
from ....settings import FAST_DEFAULTS, GenerateSettings, validate
from ....visualise import xyz_grid
from .. import html, progress, prompt_info
from ..context import PRIVATE, QUICK, House, error_notice
from ..progress import ProgressUpdate, VisitorJob, stop_handler
from . import generate_form, generate_restore
from .generate_fields import Fields, GridFields, fields, grid_fields


def add(house: House) -> None:
    """Lay out the tab and wire it up."""
    with gr.Row(elem_id="workbench"):
        with gr.Column(elem_id="ask", min_width=0):
            prompt = gr.Textbox(
                "",
                label="Prompt",
                placeholder="What do you want to see? Left empty: an example.",
                lines=3,
                max_lines=12,
                max_length=house.settings.max_prompt,
                autofocus=True,
                elem_id="prompt",
            )
            meter = gr.HTML(elem_id="meter")
            with gr.Row(elem_id="buttons"):
                go = gr.Button("Generate", variant="primary", elem_id="go", min_width=0)
                stop = gr.Button("Stop", variant="stop", elem_id="stop", visible=False, min_width=0)
                drop = gr.UploadButton(
                    "From a picture …",
                    file_types=[".png", ".jpg", ".jpeg", ".webp"],
                    elem_id="drop",
                    min_width=0,
                    size="md",
                )
            notice = gr.HTML(elem_id="notice")
        with gr.Column(elem_id="view", min_width=0):
            stage = gr.HTML(html.render_welcome(), elem_id="stage")
            result = gr.Gallery(
                label="Result",
                show_label=False,
                preview=True,
                object_fit="contain",
                visible=False,
                buttons=["download", "fullscreen"],
                elem_id="result",
                interactive=False,
                height="auto",
            )
            with gr.Row(elem_id="actions", visible=False) as actions:
                use: dict[generate_restore.RestoreMode, gr.Button] = {
                    "all": gr.Button("Use all", size="sm", min_width=0),
                    "remix": gr.Button("Remix", size="sm", min_width=0),
                    "seed": gr.Button("Use seed", size="sm", min_width=0),
                }
        with gr.Column(elem_id="more", min_width=0):
            with gr.Accordion("Settings", open=False, elem_id="settings"):
                parts = fields(house, prompt)
            with gr.Accordion("Grid: compare settings side by side", open=False, elem_id="grid"):
                table = grid_fields()
    state = _State(gr.State(None), gr.State([]), gr.State(0))
    page = _Page(go, stop, stage, result, actions, notice, table.draw)
    house.places |= {
        "form": parts.by_name,
        "made": state.made,
        "chosen": state.chosen,
        "actions": actions,
        "notice": notice,
    }
    _wire_generate(house, page, parts, table, state)
    _wire_restoring(house, page, parts, (drop, use), state)
    _wire_helpers(house, parts, meter)
    if not house.settings.no_api:
        _wire_api(house, parts)


class _State:
    """What the server remembers of one visitor: what runs, the pictures made, the one shown."""

    def __init__(self, run: gr.State, made: gr.State, chosen: gr.State):
        self.run, self.made, self.chosen = run, made, chosen


class _Page:
    """The components that show how it goes."""

    def __init__(self, go, stop, stage, result, actions, notice, draw):
        self.go, self.stop, self.stage, self.draw = go, stop, stage, draw
        self.result, self.actions, self.notice = result, actions, notice

    @property
    def all(self) -> list[Any]:
        return [self.go, self.stop, self.draw, self.stage, self.result, self.actions, self.notice]

    def begin(self) -> dict[Any, Any]:
        return self._busy(True) | {
            self.stage: gr.update(value=html.render_stage((), None, "starting …"), visible=True),
            self.result: gr.update(visible=False),
            self.actions: gr.update(visible=False),
            self.notice: "",
        }

    def show(self, moment: ProgressUpdate) -> dict[Any, Any]:
        return {self.stage: html.render_stage(moment.previews, moment.fraction, moment.status)}

    def end(self, outputs: Path, moment: ProgressUpdate) -> dict[Any, Any]:
        """The finished pictures; without any, the last preview stays."""
        words = html.render_notice(moment.status) if moment.images else ""
        if not moment.images:
            return self._busy(False) | self.show(moment)
        paths = [(str(outputs / name), moment.prompt) for name in moment.images]
        return self._busy(False) | {
            self.stage: gr.update(visible=False),
            self.result: gr.update(value=paths, selected_index=0, visible=True),
            self.actions: gr.update(visible=True),
            self.notice: words,
        }

    def fail(self, error: Exception, made: bool) -> dict[Any, Any]:
        """The words about an error; what was there before comes back."""
        shown = {
            self.stage: gr.update(value=html.render_welcome(), visible=not made),
            self.result: gr.update(visible=made),
            self.actions: gr.update(visible=made),
        }
        return self._busy(False) | shown | {self.notice: error_notice(error)}

    def _busy(self, busy: bool) -> dict[Any, Any]:
        return {
            self.go: gr.update(visible=not busy),
            self.stop: gr.update(visible=busy),
            self.draw: gr.update(interactive=not busy),
        }


def _wire_generate(house: House, page: _Page, parts: Fields, table: GridFields, state: _State) -> None:
    jobs = house.jobs
    prompt = parts.by_name["prompt"]

    async def shown(moments: AsyncGenerator[ProgressUpdate], before: list[str]) -> AsyncGenerator[dict[Any, Any]]:
        try:
            async with contextlib.aclosing(moments):
                async for moment in moments:
                    if moment.is_finished:
                        found = {state.made: list(moment.images), state.chosen: 0}
                        yield page.end(jobs.outputs, moment) | found
                    else:
                        yield page.show(moment)
        except Exception as error:
            yield page.fail(error, bool(before))

    async def make(before: list[str], *values: Any) -> AsyncGenerator[dict[Any, Any]]:
        given = dict(zip(generate_form.FIELDS, values, strict=True))
        given["prompt"] = (given["prompt"] or "").strip() or generate_form.example_prompt()
        run = VisitorJob()
        yield page.begin() | {prompt: given["prompt"], state.run: run}
        try:
            settings = generate_form.settings_of(given)
        except DiffusekitError as error:
            yield page.fail(error, bool(before))
            return
        async with contextlib.aclosing(shown(progress.follow_images(jobs, settings, run), before)) as each:
            async for update in each:
                yield update

    async def draw(before: list[str], *values: Any) -> AsyncGenerator[dict[Any, Any]]:
        names, rest = values[:6], values[6:]
        given = dict(zip(generate_form.FIELDS, rest, strict=True))
        given["prompt"] = (given["prompt"] or "").strip() or generate_form.example_prompt()
        run = VisitorJob()
        yield page.begin() | {prompt: given["prompt"], state.run: run}
        try:
            axes, cells, settings = _grid_of(names, given)
        except DiffusekitError as error:
            yield page.fail(error, bool(before))
            return
        async with contextlib.aclosing(shown(progress.follow_grid(jobs, axes, cells, settings, run), before)) as each:
            async for update in each:
                yield update

    outputs = [*page.all, prompt, state.run, state.made, state.chosen]
    free: dict[str, Any] = PRIVATE | {"concurrency_limit": None, "show_progress": "hidden"}
    page.go.click(make, [state.made, *parts.inputs], outputs, **free)
    table.draw.click(draw, [state.made, *table.inputs, *parts.inputs], outputs, **free)
    page.stop.click(stop_handler(jobs), state.run, None, **QUICK)


def _grid_of(
    chosen: tuple[Any, ...], given: Mapping[str, Any]
) -> tuple[list[xyz_grid.Axis | None], list[xyz_grid.GridCell], dict[str, Any]]:
    """Axes and cells, each cell's settings checked, from three times (axis, values); and the settings of
    the whole grid."""
    axes = [
        xyz_grid.parse_axis(name, text or "") if name else None
        for name, text in zip(chosen[::2], chosen[1::2], strict=True)
    ]
    settings = {"seed": secrets.randbelow(2**32), "negative_prompt": ""} | generate_form.settings_of(given)
    cells = xyz_grid.grid_cells(axes, settings)
    for cell in cells:
        validate(GenerateSettings, cell.settings)
    return axes, cells, settings


def _wire_restoring(
    house: House,
    page: _Page,
    parts: Fields,
    sources: tuple[Any, dict[generate_restore.RestoreMode, gr.Button]],
    state: _State,
) -> None:
    jobs, (drop, use) = house.jobs, sources
    by_name = parts.by_name

    def restored(path: Path, what: generate_restore.RestoreMode) -> dict[Any, Any]:
        try:
            found = generate_restore.form_updates(jobs, path, what, by_name)
            return found | {page.notice: generate_restore.restore_notice(jobs, path, what)}
        except Exception as error:
            return {page.notice: error_notice(error)}

    def dropped(path: str | None) -> dict[Any, Any]:
        return restored(Path(path), "all") if path else {page.notice: ""}

    def again(what: generate_restore.RestoreMode) -> Any:
        def use_it(made: list[str], chosen: int) -> dict[Any, Any]:
            return restored(jobs.outputs / made[min(chosen, len(made) - 1)], what)

        return use_it

    outputs = [*parts.inputs, page.notice]
    drop.upload(dropped, drop, outputs, **QUICK)
    for what, button in use.items():
        button.click(again(what), [state.made, state.chosen], outputs, **QUICK)
    parts.reuse.click(
        _last_seed(jobs.outputs, page, parts), [state.made, state.chosen], [parts.by_name["seed"], page.notice], **QUICK
    )

    def choose(event: gr.SelectData) -> int:
        return int(event.index)

    page.result.select(choose, None, state.chosen, **QUICK)


def _last_seed(outputs: Path, page: _Page, parts: Fields) -> Any:
    def reuse(made: list[str], chosen: int) -> dict[Any, Any]:
        if not made:
            return {page.notice: html.render_notice("There is no picture yet.", "generate one first")}
        path = outputs / made[min(chosen, len(made) - 1)]
        try:
            found = generate_restore.metadata.read(path).settings
        except DiffusekitError as error:
            return {page.notice: error_notice(error)}
        if found is None or found.seed is None:
            return {page.notice: html.render_notice("This picture does not tell its seed.")}
        return {parts.by_name["seed"]: str(found.seed)}

    return reuse


def _wire_helpers(house: House, parts: Fields, meter: gr.HTML) -> None:
    """The token counter, the dice, what follows the model, and the list of learned tokens."""
    names = parts.by_name

    def counted(prompt: str, learned: list[str], model: str) -> str:
        # transformers may not be imported by two threads at once: the worker's comes first
        if not (prompt or "").strip() or not house.jobs.is_ready:
            return ""
        try:
            known = house.jobs.models.names().get(model, model)
            found = prompt_info.count_tokens(known, prompt, tuple(learned or ()), house.jobs.embeddings)
        except DiffusekitError as error:
            return html.render_notice(error.message, error.hint)
        return html.render_meter(found.used, found.limit, found.truncated, found.learned)

    watched = [names["prompt"], names["embedding"], names["model"]]
    gr.on([part.change for part in watched], counted, watched, meter, trigger_mode="always_last", **QUICK)
    parts.dice.click(lambda: "", None, names["seed"], **QUICK)
    parts.swap.click(lambda w, h: (h, w), [names["width"], names["height"]], [names["width"], names["height"]], **QUICK)

    def suits(model: str) -> tuple[Any, ...]:
        try:
            known = house.jobs.models.names().get(model, model)
            info = prompt_info.describe_model(known)
            fast = gr.update(visible=info.has_fast_lora, value=False)
            return info.guidance_scale, info.native_size, info.native_size, fast
        except (DiffusekitError, OSError, ValueError, KeyError):
            return (gr.skip(),) * 4

    sized = [names["guidance_scale"], names["width"], names["height"], names["fast"]]
    names["model"].input(suits, names["model"], sized, **QUICK)

    def hurry(fast: bool, model: str) -> list[Any]:
        default = {name: GenerateSettings.model_fields[name].default for name in FAST_DEFAULTS}
        own = {"guidance_scale": prompt_info.describe_model(house.jobs.models.names().get(model, model)).guidance_scale}
        return list(FAST_DEFAULTS.values() if fast else (default | own).values())

    names["fast"].input(hurry, [names["fast"], names["model"]], [names[name] for name in FAST_DEFAULTS], **QUICK)

    def refresh() -> tuple[Any, str]:
        known = generate_restore.learned_names(house.jobs.embeddings)
        return gr.update(choices=known, visible=bool(known)), html.render_word_list(known)

    house.places["refresh"] = (refresh, [names["embedding"], parts.words])


def _wire_api(house: House, parts: Fields) -> None:
    """`generate` for gradio_client: the same settings, and the finished pictures' files."""
    jobs = house.jobs
    call = gr.Button(visible=False)
    files = gr.Gallery(visible=False, label="Pictures")

    async def generate(*values: Any) -> AsyncGenerator[Any]:
        given = dict(zip(generate_form.FIELDS, values, strict=True))
        if given["fast"]:  # what the client left as it was is Fast's to say
            left = {name for name in FAST_DEFAULTS if given[name] == parts.by_name[name].value}
            given = {name: value for name, value in given.items() if name not in left}
        given["prompt"] = (given["prompt"] or "").strip() or generate_form.example_prompt()
        try:
            moments = progress.follow_images(jobs, generate_form.settings_of(given))
            async with contextlib.aclosing(moments):
                async for moment in moments:
                    yield [str(jobs.outputs / name) for name in moment.images]
        except DiffusekitError as error:
            raise gr.Error(f"{error.message}; {error.hint}") from None

    names = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in generate_form.FIELDS]
    generate.__signature__ = inspect.Signature(names)  # type: ignore[attr-defined]
    call.click(
        generate,
        parts.inputs,
        files,
        api_name="generate",
        api_visibility="public",
        api_description="Make pictures of a prompt; every setting but the prompt may be left out.",
        concurrency_limit=None,
    )
