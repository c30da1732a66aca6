"""Declare the fields of settings, and those that several verbs share."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from .display import parse_size


def _check_size(text: str | None) -> str | None:
    if text is not None:
        parse_size(text)
    return text


Attention = Literal["sdpa", "xformers", "math"]
Memory = Annotated[str | None, AfterValidator(_check_size)]


def flag(default: Any, sentence: str, *names: str, **checks: Any) -> Any:
    """Declare a field with its description. `names` are its flags, when these are not its own name with dashes."""
    return Field(default, description=sentence, json_schema_extra={"flags": list(names)}, **checks)


def attention_flag() -> Any:
    """Declare the field `attention`, which is the same for every verb."""
    return flag("sdpa", "Attention of the networks: torch's (sdpa), xformers, or written out (math).")


def memory_flag() -> Any:
    """Declare the field `memory`, which is the same for every verb."""
    return flag(
        None,
        "Memory that the model may use on its device, like 4GB. On a GPU, networks or layers wait in the computer's "
        "memory; on a CPU, images are decoded in tiles or bfloat16 is used. Default: what is free.",
    )
