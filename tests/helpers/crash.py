"""Kill an inversion again and again: it must end with the same token as one that was not killed.

    python -m tests.helpers.crash [--kills 50] [--counts 1 3 5] [--model FOLDER] [--pictures FOLDER]

Each attempt is a process of its own, with as many threads as a user has. They are forks of a server that has imported
torch and computed nothing, so that no thread is lost in the fork and torch is imported once. Prints one JSON object.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from diffusekit.settings import InvertSettings

SITES = (
    "before writing",
    "half written",
    "before syncing",
    "before renaming",
    "after renaming",
    "before tidying",
)
FORKSERVER = multiprocessing.get_context("forkserver")


def train(settings: InvertSettings, output: Path, die_at: tuple[str, int] | None = None) -> None:
    """Start or resume a run, in a process of its own. It kills itself when it comes to a site for the nth time."""
    from diffusekit import atomic
    from diffusekit.inversion.trainer import Inversion

    if die_at:
        site, left = die_at[0], [die_at[1]]

        def reached(name: str) -> None:
            left[0] -= name == site
            if left[0] == 0 and name == site:
                os.kill(os.getpid(), signal.SIGKILL)

        atomic.crash_point = reached
    if (output / "three.safetensors").exists():
        return
    run = Inversion(settings, output, resume=True)
    for _ in run:
        pass
    run.close()


def attempt(settings: InvertSettings, output: Path, die_at: tuple[str, int] | None = None) -> BaseProcess:
    """Start a process that trains."""
    process = FORKSERVER.Process(target=train, args=(settings, output, die_at))
    process.start()
    return process


def finish(settings: InvertSettings, output: Path) -> str:
    """Run to the end, and return the token's SHA-256."""
    process = attempt(settings, output)
    process.join()
    assert process.exitcode == 0, process.exitcode
    left = [p for p in output.rglob("*") if p.name.endswith(".new")]
    assert not left, left
    return hashlib.sha256((output / "three.safetensors").read_bytes()).hexdigest()


def kill_after(process: BaseProcess, seconds: float) -> bool:
    """Kill a process after some seconds; return whether it was still running."""
    process.join(seconds)
    was_running = process.is_alive()
    process.kill()
    process.join()
    return was_running


def kill_everywhere(settings: InvertSettings, work: Path, *, kills: int, counts: list[int]) -> dict[str, Any]:
    """Kill runs at random moments, at every site where files are written, and one run over and over."""
    expected = finish(settings, work / "whole")
    started = time.monotonic()
    again = finish(settings, work / "again")
    seconds, rng = time.monotonic() - started, random.Random(0)
    ends, interrupted = [], 0
    for kill in range(kills):
        output = work / f"random-{kill}"
        interrupted += kill_after(attempt(settings, output), rng.uniform(0, seconds))
        ends.append(finish(settings, output))
    sites = {}
    for site in SITES:
        for count in counts:
            output = work / f"{site.replace(' ', '-')}-{count}"
            process = attempt(settings, output, (site, count))
            process.join()
            assert process.exitcode == -signal.SIGKILL, (site, count, process.exitcode)
            sites[f"{site} {count}"] = finish(settings, output)
    chained, output = 0, work / "chain"
    while not (output / "three.safetensors").exists():  # each attempt writes one file more than the one before
        attempt(settings, output, (SITES[chained % len(SITES)], chained + 2)).join()
        chained += 1
    chain = hashlib.sha256((output / "three.safetensors").read_bytes()).hexdigest()
    return {
        "expected": expected,
        "again": again,
        "random": ends,
        "interrupted": interrupted,
        "sites": sites,
        "chain": chain,
        "chained": chained,
        "seconds": round(seconds, 1),
    }


def main() -> None:
    from tests.helpers.inversions import pictures

    parser = argparse.ArgumentParser(description="Kill an inversion again and again.")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 3, 5], help="die at a site for the nth time")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    FORKSERVER.set_forkserver_preload(["tests.helpers.preload"])
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        settings = InvertSettings(
            pictures=str(given.pictures or pictures(work / "three")),
            name="three",
            model=given.model,
            init="cat",
            steps=10,
            batch=2,
            vectors=2,
            preview_every=5,
            preview_images=1,
            checkpoint_every=2,
            patience=0,
            device="cpu",
            clip="",
        )
        result = kill_everywhere(settings, work, kills=given.kills, counts=given.counts)
    print(json.dumps(result))
    hashes = {result["expected"], result["again"], result["chain"], *result["random"], *result["sites"].values()}
    print(f"{given.kills} random kills: {len(hashes)} different tokens", file=sys.stderr)


if __name__ == "__main__":
    main()
