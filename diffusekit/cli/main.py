"""The `diffusekit` command: it runs a verb, prints errors and warnings, and decides the exit code."""

import contextlib
import errno
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

import typer

from ..errors import DiffusekitError, DiskError
from .app import command_line
from .flags import find_flags, insert_flags
from .streams import open_streams

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


class StopSignal(BaseException):
    """Ctrl-C or SIGTERM. It propagates through all running code so that it can clean up."""

    def __init__(self, number: int):
        super().__init__(number)
        self.exit_code = 128 + number


def raise_stop_signal(number: int, _frame: FrameType | None) -> None:
    """Handle SIGINT and SIGTERM."""
    raise StopSignal(number)


def main() -> None:
    """Run the command line of this process, then end the process."""
    open_streams()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, raise_stop_signal)
    code = run(sys.argv[1:])
    # Python takes a second to unload torch, module by module. All output is written by then, so skip it.
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


# CPython keeps the frames of Python functions in chunks of 16 KB. A call at the edge of a chunk maps a new chunk and
# unmaps it on return, thousands of times if it happens in a loop. One frame that asks for more gets a chunk of its
# size, with room for all calls made from it.
main.__code__ = main.__code__.replace(co_stacksize=1 << 16)


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code."""
    flags: dict[str, str] = {}
    try:
        command: Any = typer.main.get_command(command_line(*arguments[:1]))
        flags = find_flags(command, arguments)
        with _print_warnings(flags):
            code = command.main(arguments, prog_name="diffusekit", standalone_mode=False)
        sys.stdout.flush()  # an error of stdout is an error of this command
        return code if isinstance(code, int) else 0
    except DiffusekitError as error:
        _print_error(error.message, error.hint, flags)
        return error.exit_code
    except StopSignal as stopped:
        if os.environ.get("RANK", "0") == "0":  # of several processes, only the first prints
            _print_error("stopped", "finished files are kept")
        return stopped.exit_code
    except BrokenPipeError:
        return _close_pipe()
    except SystemExit as stopped:  # typer ends the program when a pipe is closed
        if not isinstance(stopped.__context__, BrokenPipeError):
            raise
        return _close_pipe()
    except OSError as error:
        return _report_disk(error) if error.errno in _DISK_ERRORS else _report(error)
    except Exception as error:
        return _report(error)


@contextlib.contextmanager
def errors_as_exit() -> Iterator[None]:
    """Print errors as the command line does and end the program. For programs beside the command line."""
    try:
        yield
    except DiffusekitError as error:
        _print_error(error.message, error.hint)
        sys.exit(error.exit_code)


@contextlib.contextmanager
def _print_warnings(flags: Mapping[str, str]) -> Iterator[None]:
    """Print each of the library's log records on stderr once, on one line, with flags instead of setting names."""
    printed: set[str] = set()

    class Lines(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return f"{record.levelname.lower()}: {insert_flags(super().format(record), flags)}"

    def is_new(record: logging.LogRecord) -> bool:
        count = len(printed)
        printed.add(record.getMessage())
        return len(printed) > count

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    handler.addFilter(is_new)
    log = logging.getLogger("diffusekit")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _close_pipe() -> int:
    """Discard what is left to print, because the reader of stdout has ended, and return the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _report_disk(error: OSError) -> int:
    """Print that a file, or else stdout, could not be written, and return the exit code."""
    where = f"{error.filename}" if error.filename else "the output"
    hint = "check the free space, and where the output goes; finished files are kept"
    _print_error(f"cannot write {where}: {error.strerror or error}", hint)
    return DiskError.exit_code


def _report(error: Any) -> int:
    """Print an error that is not ours. Those of typer are usage errors, all others are bugs."""
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        context = getattr(error, "ctx", None)
        message = error.format_message()
        if context and message == context.get_help():  # no verb was given
            print(message)
        else:
            sentence = message.rstrip(".").replace("\n", " ")
            _print_error(sentence, f"{context.command_path if context else 'diffusekit'} --help")
        return int(error.exit_code)
    if os.environ.get("DIFFUSEKIT_DEBUG"):
        raise error
    message = f"unexpected {type(error).__name__}: {error}"
    _print_error(message, "set DIFFUSEKIT_DEBUG=1 to see the traceback, and please report it")
    return 1


def _print_error(message: str, hint: str, flags: Mapping[str, str] | None = None) -> None:
    for label, text in (("error", message), ("hint", hint)):
        if text:  # a name can have bytes that are not text
            line = f"{label}: {insert_flags(text, flags or {})}"
            print(line.encode("utf-8", "backslashreplace").decode(), file=sys.stderr)
