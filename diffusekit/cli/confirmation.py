"""Ask before something is deleted."""

import sys

import typer

from ..errors import UsageError


def confirm(description: str, *, yes: bool) -> None:
    """Ask whether to delete something, unless `yes`; raises `UsageError` for no, and where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"cannot ask whether to delete {description}: stdin is not a terminal", "add --yes")
    try:
        agreed = typer.confirm(f"Delete {description}?", err=True)
    except typer.Abort:  # the end of the input
        agreed = False
    if not agreed:
        raise UsageError("nothing was deleted", "answer y to delete")
