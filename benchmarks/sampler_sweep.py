"""The tables of docs/samplers.md: `python -m benchmarks.sampler_sweep`.

Every sampler with 1 to 1,000 steps, on the noise schedules of usual models and on each combination of spacing and
offset, without a network. Runs on the CPU and takes some minutes. Arguments are samplers; without any, all are swept.
"""

import json
import sys
from functools import lru_cache

from diffusekit import SAMPLERS, schedule
from diffusekit.errors import UsageError
from tests.helpers.sampler_sweep import COMBINATIONS, MODELS, check_schedule, diffusers_own, landing_error, write_ranges

STEPS = range(1, 1001)
BETAS = ("beta_start", "beta_end", "beta_schedule", "rescale_betas_zero_snr")
LANDINGS = (1, 2, 3, 4, 5, 10, 20, 50, 61, 180, 250, 501, 700, 999, 1000)


def usable_steps(name: str, config: dict) -> tuple[list[int], list[int]]:
    """Return the numbers of steps that pass every check, and those that diffusers refuses or sets wrongly."""
    if name == "dpm++_2m_karras":  # its slow spacing depends on the betas alone
        config = {key: config[key] for key in BETAS if key in config}
    return _usable_steps(name, json.dumps(config))


@lru_cache
def _usable_steps(name: str, config: str) -> tuple[list[int], list[int]]:
    passed, mended = [], []
    scheduler = schedule.make_scheduler(name, json.loads(config))
    for steps in STEPS:
        try:
            schedule.set_steps(scheduler, steps)
            check_schedule(name, scheduler, steps)
        except (AssertionError, UsageError) as error:
            print(f"{name}, {steps} steps: {error}", file=sys.stderr)
            continue
        passed.append(steps)
        if diffusers_own(name, scheduler, steps) is None:
            mended.append(steps)
    return passed, mended


def describe_model(name: str, config: dict) -> str:
    """Write the range of steps of a sampler on a model, and its worst distance from x0."""
    passed, _ = usable_steps(name, config)
    worst = max(landing_error(name, config, steps) for steps in LANDINGS if steps in passed)
    return f"{write_ranges(passed)}; {worst:.2g}"


def print_table(first: str, columns: dict[str, dict], cell) -> None:
    print(f"\n| {first} | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name in sys.argv[1:] or SAMPLERS:
        print(f"| {name} | {' | '.join(cell(name, config) for config in columns.values())} |", flush=True)


def main() -> None:
    print_table("sampler", MODELS, describe_model)
    print_table("sampler", COMBINATIONS, lambda name, config: write_ranges(usable_steps(name, config)[1]) or "none")


if __name__ == "__main__":
    main()
