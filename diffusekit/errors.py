"""What can go wrong for a user: one sentence, one hint, one exit code.

Raised anywhere, shown in one place (`cli/boundary.py`). A mistake of the programmer is an assertion.
"""


class DiffusekitError(Exception):
    """Something a user can understand and act on.

    `message` says what happened, what was got and what was wanted; `hint` what to do next.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.message, self.hint = message, hint


class UsageError(DiffusekitError):
    """A value that cannot be used."""

    exit_code = 2


class FileRefused(DiffusekitError):
    """A file that is unsafe or not what it should be."""

    exit_code = 3


class DataSetError(DiffusekitError):
    """Pictures that nothing can be learned from."""

    exit_code = 4


class Diverged(DiffusekitError):
    """Training that went wrong; the last good checkpoint is kept."""

    exit_code = 5


class OutOfMemory(DiffusekitError):
    """The work does not fit, not even in its smallest pieces."""

    exit_code = 6


class DiskError(DiffusekitError):
    """A file could not be written; what was there before is still there."""

    exit_code = 7


class ModelError(DiffusekitError):
    """A model that is missing, damaged, of a kind unknown here, or out of reach without a network."""

    exit_code = 8


class Overloaded(DiffusekitError):
    """The server takes no more work for now; in `retry_after` seconds it may again."""

    exit_code = 9

    def __init__(self, message: str, hint: str = "", *, retry_after: int = 1):
        super().__init__(message, hint)
        self.retry_after = retry_after
