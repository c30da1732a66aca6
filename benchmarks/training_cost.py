"""What determinism costs in steps per second, and how many training steps a validation image takes.

python -m benchmarks.training_cost [--model mini] [--rounds 24]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from diffusekit.inversion.determinism import Determinism
from diffusekit.inversion.trainer import Inversion
from diffusekit.settings import InvertSettings
from tests.helpers.inversions import pictures

STEPS = 4  # of training, in a round


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--rounds", type=int, default=24)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photos = pictures(Path(folder) / "three", side=128, count=4)
        settings = InvertSettings(pictures=str(photos), model=given.model, init="cat", device="cpu")
        run = Inversion(settings, Path(folder) / "out")
        modes = {enabled: Determinism(enabled=enabled) for enabled in (True, False)}
        times: dict[bool, list[float]] = {True: [], False: []}
        for number in range(given.rounds):  # in turns, so that other work on the machine meets both
            for enabled in (True, False) if number % 2 else (False, True):
                mode = modes[enabled]
                work = seconds(lambda mode=mode: [mode.run(lambda: run.optimizer.step(20)) for _ in range(STEPS)])
                times[enabled].append(work / STEPS)
        ratios = [on / off for on, off in zip(times[True], times[False], strict=True)]
        images = run.plan.image_count
        validation = statistics.median(seconds(lambda: run.evaluator.evaluate("cat")) for _ in range(3)) / images
        run.close()
    on, off = (1 / statistics.median(times[enabled]) for enabled in (True, False))
    print(f"{run.model.name}, {torch.get_num_threads()} threads, batch {settings.batch}")
    print(f"steps per second: {on:.2f} deterministic, {off:.2f} not; ratio of times {statistics.median(ratios):.3f}")
    samples = validation * on * settings.batch
    print(f"a validation image takes {validation:.2f} s, as long as {samples:.1f} training samples")


if __name__ == "__main__":
    main()
