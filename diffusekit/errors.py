"""Errors that a user can act on: one message, one hint, one exit code.

Any module raises them. The command line prints them in `cli/main.py`, and the server turns them into
responses in `server/errors.py`. A mistake in the program is an assertion instead.
Other exit codes: 0 success, 130 interrupted by Ctrl-C, 143 terminated.
"""


class DiffusekitError(Exception):
    """An error that a user can understand and act on.

    `message` says what was expected and what came. `hint` says what to do next.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.message, self.hint = message, hint


class UsageError(DiffusekitError):
    """An unusable value of a setting or argument."""

    exit_code = 2


class FileRefused(DiffusekitError):
    """A file that is unsafe, damaged or of another kind than expected."""

    exit_code = 3


class DataSetError(DiffusekitError):
    """Images that no token can be learned from."""

    exit_code = 4


class Diverged(DiffusekitError):
    """Training that diverged. The last good checkpoint is kept."""

    exit_code = 5


class OutOfMemory(DiffusekitError):
    """Work that does not fit into memory, even in its smallest parts."""

    exit_code = 6


class DiskError(DiffusekitError):
    """A file that could not be written. The old file is unchanged."""

    exit_code = 7


class ModelError(DiffusekitError):
    """A model that is missing, damaged, unknown, or not available offline."""

    exit_code = 8


class ImagesFlagged(DiffusekitError):
    """Images that the safety checker of their model flagged. They are not written."""

    exit_code = 10

    def __init__(self, count: int, total: int):
        what = "the image" if total == 1 else f"{count} of {total} images"
        super().__init__(
            f"the model's safety checker flagged {what}, which {'was' if count == 1 else 'were'} not written",
            "change the prompt or the `seed`; `no_safety_checker` turns the checker off",
        )


class Overloaded(DiffusekitError):
    """A server that accepts no more work for `retry_after` seconds."""

    exit_code = 9

    def __init__(self, message: str, hint: str = "", *, retry_after: int = 1):
        super().__init__(message, hint)
        self.retry_after = retry_after


class BatchIncomplete(DiffusekitError):
    """A list of prompts of which some lines failed. The images of the others are there."""

    exit_code = 11
