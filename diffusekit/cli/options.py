"""Make a verb's flags from its settings model, so that a knob is one field in `settings.py`."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, get_type_hints

import typer

from ..settings import Settings


def with_settings(model: type[Settings], *leave_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one flag per field of `model`; it receives the given ones as `settings: dict`.

    A flag that is not given is left out, so that environment, files and defaults can speak.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command).parameters.values() if p.name != "settings"]
        flags = [_flag(model, name) for name in model.model_fields if name not in leave_out]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            settings = {f.name: given.pop(f.name) for f in flags}
            command(
                **given,
                settings={k: v for k, v in settings.items() if v is not None and v != []},
            )

        run.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in [*own, *flags]}
        del run.__wrapped__  # type: ignore[attr-defined]
        return run

    return decorate


def with_group(group: type, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one flag per field of a dataclass; it receives them together as `name`.

    The fields are `Annotated` with a typer option and have a default.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(group, include_extras=True)
        flags = [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
            for f in fields(group)
        ]
        own = [p for p in inspect.signature(command).parameters.values() if p.name != name]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            values = {f.name: given.pop(f.name) for f in flags}
            command(**given, **{name: group(**values)})

        run.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in [*own, *flags]}
        del run.__wrapped__  # type: ignore[attr-defined]
        return run

    return decorate


def _flag(model: type[Settings], name: str) -> inspect.Parameter:
    field = model.model_fields[name]
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    names = extra.get("flags") or [f"--{name.replace('_', '-')}"]
    default = (
        "" if field.default is None else f" Default: {field.default}." if field.default not in ("", (), False) else ""
    )
    option = typer.Option(*names, help=f"{field.description}{default}", show_default=False)  # type: ignore[arg-type]
    kind = _plain(field.annotation)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


def _plain(annotation: Any) -> type:
    """int, float, bool, str or a list of str: what a flag is read as; the settings check the rest."""
    if getattr(annotation, "__origin__", None) is tuple:
        return list[str]
    for kind in (bool, int, float):
        if annotation is kind or kind in getattr(annotation, "__args__", ()):
            return kind
    return str
