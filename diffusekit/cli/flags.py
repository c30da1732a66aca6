"""Flags in messages: a setting that the library names as `overwrite` is printed as --overwrite."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

_SETTING = re.compile(r"`([a-z_]+)`")


def find_flags(command: Any, arguments: Iterable[str]) -> dict[str, str]:
    """Return the flag of each option of the verb that `arguments` run, by name. `command` is the root."""
    for word in arguments:
        command = getattr(command, "commands", {}).get(word, command)
    return {
        option.name: next(flag for flag in option.opts if flag.startswith("--"))
        for option in command.params
        if option.param_type_name == "option"
    }


def insert_flags(text: str, flags: Mapping[str, str]) -> str:
    """Replace the names of settings between backquotes by their flags. Names without a flag stay as they are."""
    return _SETTING.sub(lambda match: flags.get(match[1], match[0]), text)
