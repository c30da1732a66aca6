"""Where errors become a sentence, a hint and an exit code; the only place that decides how a run ends."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import typer

from ..errors import DiffusekitError
from .app import command_line
from .stopping import Stopped, stop


def main() -> None:
    """The `diffusekit` command."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    code = run(sys.argv[1:])
    # Python takes a second to put torch away, module by module; nothing is left to be done by then.
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit code."""
    try:
        app = command_line(*arguments[:1])
        code = typer.main.get_command(app).main(arguments, prog_name="diffusekit", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except DiffusekitError as error:
        _say(error.message, error.hint)
        return error.exit_code
    except Stopped as stopped:
        if os.environ.get("RANK", "0") == "0":  # of several processes, one speaks
            _say("stopped", "what was finished is kept")
        return stopped.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _other(error)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """For programs beside the command line: errors are said as it says them, and end the program."""
    try:
        yield
    except DiffusekitError as error:
        _say(error.message, error.hint)
        sys.exit(error.exit_code)


def _other(error: Any) -> int:
    """typer's usage errors are the user's; everything else is ours."""
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        context = getattr(error, "ctx", None)
        sentence = error.format_message().rstrip(".").replace("\n", " ")
        if sentence:  # there is none when nothing was asked for: the help is all there is to say
            _say(sentence, f"{context.command_path if context else 'diffusekit'} --help")
        return int(error.exit_code)
    if os.environ.get("DIFFUSEKIT_DEBUG"):
        raise error
    _say(
        f"unexpected: {type(error).__name__}: {error}",
        "DIFFUSEKIT_DEBUG=1 shows where; please report it",
    )
    return 1


def _say(message: str, hint: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
