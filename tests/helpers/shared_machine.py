"""Tests that measure time or memory run with the machine to themselves, also when others run side by side.

pytest-xdist runs one test in each of its workers. A test marked `alone` waits until no other runs, and the
others wait for it. A second lock keeps those that come later from overtaking it.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def machine_share(*, alone: bool) -> Iterator[None]:
    """Hold a share of the machine, or all of it; without pytest-xdist there is nobody to share with."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if not run or os.name != "posix":
        yield
        return
    import fcntl

    folder = Path(tempfile.gettempdir())
    with (folder / f"pytest-{run}.turn").open("w") as turn, (folder / f"pytest-{run}.machine").open("w") as machine:
        fcntl.flock(turn, fcntl.LOCK_EX)
        fcntl.flock(machine, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(turn, fcntl.LOCK_UN)
        yield
