"""Deterministic training: PyTorch's switch, on while a run computes and back as it was between its steps.

With the switch on, PyTorch chooses algorithms that give the same bits every time. The same bits also need the same
number of threads, kind of processor and version of PyTorch, because these decide in which order numbers are added.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

log = logging.getLogger(__name__)

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # cuBLAS reads it once, when it is first used
T = TypeVar("T")


class Determinism:
    """Runs work with deterministic algorithms, if `enabled`. Without, it changes nothing.

    The switch belongs to the process: other threads of the process have it too while work runs.
    """

    def __init__(self, *, enabled: bool):
        self._enabled = enabled
        self._warn_only = False

    @property
    def is_exact(self) -> bool:
        """Whether everything so far had a deterministic algorithm."""
        return self._enabled and not self._warn_only

    def run(self, work: Callable[[], T]) -> T:
        """Do the work and return its result. The process's switches are afterwards what they were.

        If the device has no deterministic algorithm for an operation, say so once and do the work again without.
        The work is therefore one that may be repeated.
        """
        with self.active():
            try:
                return work()
            except RuntimeError as error:
                if not self.is_exact or "deterministic" not in str(error):
                    raise
                self._warn_only = True
                log.warning("this device cannot train bit-exactly: %s", str(error).split(". ")[0].split("\n")[0])
        with self.active():
            return work()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Turn the switches on; on leaving, set them back."""
        if not self._enabled:
            yield
            return
        fill: Any = torch.utils.deterministic
        mode, filled = torch.get_deterministic_debug_mode(), fill.fill_uninitialized_memory
        workspace = os.environ.get(_WORKSPACE)
        cudnn: Any = torch.backends.cudnn
        flags = cudnn.deterministic, cudnn.benchmark
        try:
            os.environ.setdefault(_WORKSPACE, ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=self._warn_only)
            fill.fill_uninitialized_memory = False  # it costs time, and nothing reads that memory
            cudnn.deterministic, cudnn.benchmark = True, False
            yield
        finally:
            torch.set_deterministic_debug_mode(mode)
            fill.fill_uninitialized_memory = filled
            cudnn.deterministic, cudnn.benchmark = flags
            if workspace is None:
                os.environ.pop(_WORKSPACE, None)
