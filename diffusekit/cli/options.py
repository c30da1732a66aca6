"""Make a verb's flags from its settings model, so that a setting is one field in `settings.py`."""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Annotated, Any, get_type_hints

import typer

from ..settings import ModelSettings, Settings, flags_of
from .completion import COMPLETIONS
from .flags import insert_flags

Command = Callable[..., None]


def with_settings(model: type[Settings], *leave_out: str) -> Callable[[Command], Command]:
    """Give a command one flag for each field of `model`. It receives those that were given as `settings: dict`.

    A flag that is not given is missing from the dict, so that the environment, files and defaults apply.
    """
    own = [name for name in model.model_fields if name not in ModelSettings.model_fields]
    rest = [name for name in model.model_fields if name not in own]
    names = [name for name in own + rest if name not in leave_out]

    def decorate(command: Command) -> Command:
        def collect(given: dict[str, Any]) -> dict[str, Any]:
            values = {name: given.pop(name) for name in names}
            return {name: value for name, value in values.items() if value is not None and value != []}

        return _add_parameters(command, "settings", [_parameter(model, name) for name in names], collect)

    return decorate


def with_group(group: type, name: str) -> Callable[[Command], Command]:
    """Give a command one flag for each field of a dataclass. It receives them together as the parameter `name`.

    The fields are `Annotated` with a typer option and have a default.
    """
    hints = get_type_hints(group, include_extras=True)
    parameters = [_keyword(field.name, hints[field.name], field.default) for field in fields(group)]

    def decorate(command: Command) -> Command:
        return _add_parameters(
            command, name, parameters, lambda given: group(**{p.name: given.pop(p.name) for p in parameters})
        )

    return decorate


def _add_parameters(
    command: Command, name: str, parameters: Sequence[inspect.Parameter], collect: Callable[[dict[str, Any]], Any]
) -> Command:
    """Replace the parameter `name` of a command by `parameters`. `collect` makes its value from theirs."""
    signature = [*(p for p in inspect.signature(command).parameters.values() if p.name != name), *parameters]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        value = collect(given)
        command(**given, **{name: value})

    run.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in signature}
    del run.__wrapped__  # type: ignore[attr-defined]
    return run


def _keyword(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _parameter(model: type[Settings], name: str) -> inspect.Parameter:
    """Make the typer option of a field: its flags, its description and its default."""
    field = model.model_fields[name]
    has_default = field.default is not False and field.default not in (None, "", ())
    default = f" Default: {field.default}." if has_default else ""
    text = insert_flags(field.description or "", {other: flags_of(model, other)[0] for other in model.model_fields})
    completion = COMPLETIONS.get(name)
    option = typer.Option(
        *flags_of(model, name), help=f"{text}{default}", show_default=False, autocompletion=completion
    )
    return _keyword(name, Annotated[_flag_type(field.annotation) | None, option])


def _flag_type(annotation: Any) -> type:
    """Return how typer parses a flag: int, float, bool, str or a list of str. The settings validate the value."""
    if getattr(annotation, "__origin__", None) is tuple:
        return list[str]
    for kind in (bool, int, float):
        if annotation is kind or kind in getattr(annotation, "__args__", ()):
            return kind
    return str
