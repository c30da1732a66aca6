"""Stateless random streams, keyed by (seed, purpose, counters).

A counter-based generator (Philox; Salmon et al., 2011) has no state to save. Step 500 draws the same noise whether
the run was interrupted or not, on one device or on four.
"""

import numpy as np

_PURPOSES = ("order", "sample", "crop")


def stream(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """The generator for one purpose and up to two counters, such as the number of a sample."""
    high, low = (*counters, 0, 0)[:2]
    key = np.array([seed, _PURPOSES.index(purpose)], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, low, high, 0]))
