"""Run by test_resume.py: an inversion that is killed again and again, and must end with the same token.

The model is loaded once. Each run is a fork of this process, with one thread, so that forking is safe.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

torch.set_num_threads(1)

from diffusekit import atomic, models  # noqa: E402
from diffusekit.inversion import evaluation  # noqa: E402
from diffusekit.inversion.trainer import Inversion  # noqa: E402
from diffusekit.settings import InvertSettings  # noqa: E402

SITES = (
    "before writing",
    "half written",
    "before syncing",
    "before renaming",
    "after renaming",
    "before tidying",
)


def attempt(settings: InvertSettings, output: Path, *, die_at: tuple[str, int] | None = None) -> int:
    """Start or resume in a fork; return its process id."""
    child = os.fork()
    if child:
        return child
    try:
        if die_at:
            site, left = die_at[0], [die_at[1]]

            def reached(name: str) -> None:
                if name == site:
                    left[0] -= 1
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)

            atomic.crash_point = reached
        if (output / "three.safetensors").exists():
            os._exit(0)
        run = Inversion(settings, output, resume=True)
        for _ in run:
            pass
        os._exit(0)
    except BaseException as error:
        print(f"child: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def finish(settings: InvertSettings, output: Path) -> str:
    """Run to the end, and return the token's SHA-256."""
    _, status = os.waitpid(attempt(settings, output), 0)
    assert status == 0, status
    left = [p for p in output.rglob("*") if p.name.endswith(".new")]
    assert not left, left
    return hashlib.sha256((output / "three.safetensors").read_bytes()).hexdigest()


def main() -> None:
    model, pictures, work, kills = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    settings = InvertSettings(
        pictures=pictures,
        name="three",
        model=model,
        init="cat",
        steps=24,
        batch=2,
        vectors=2,
        preview_every=12,
        checkpoint_every=4,
        patience=0,
        device="cpu",
        clip="",
    )
    models.load(model, "cpu", "float32")
    evaluation.STEPS = 2
    started = time.monotonic()
    expected = finish(settings, work / "whole")
    seconds, result = time.monotonic() - started, {"expected": expected, "random": [], "sites": {}}
    rng = random.Random(0)
    for kill in range(kills):
        output = work / f"random-{kill}"
        child = attempt(settings, output)
        time.sleep(rng.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        result["random"].append(finish(settings, output))
    for site in SITES:
        for count in (1, 3, 5):
            output = work / f"{site.replace(' ', '-')}-{count}"
            _, status = os.waitpid(attempt(settings, output, die_at=(site, count)), 0)
            assert os.WIFSIGNALED(status), (site, count, status)
            result["sites"][f"{site} {count}"] = finish(settings, output)
    chained, output = 0, work / "chain"
    while not (output / "three.safetensors").exists():  # killed over and over in one run
        child = attempt(settings, output)
        time.sleep(seconds * rng.uniform(0.3, 0.9))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        chained += 1
    result["chain"] = hashlib.sha256((output / "three.safetensors").read_bytes()).hexdigest()
    result["chained"] = chained
    print(json.dumps(result))


if __name__ == "__main__":
    main()
