"""What a signal becomes inside the program."""

from types import FrameType


class Stopped(BaseException):
    """Ctrl-C or SIGTERM: passes through everything that runs, so that it can put its things down."""

    def __init__(self, number: int):
        super().__init__(number)
        self.exit_code = 128 + number


def stop(number: int, _frame: FrameType | None) -> None:
    """The usual handler of both signals."""
    raise Stopped(number)
