"""Runs side by side: what another prompt, sampler, seed, guidance or number of steps does to a picture.

Runs are laid beside each other by how much noise is left, not by the number of the step: five steps and
twenty meet wherever both have equally much. Knows no files.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import secrets
import textwrap
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from .. import images, models, text
from ..embeddings import find_mentions, tokens_in_prompts
from ..errors import UsageError
from ..pipeline import stream
from ..settings import GenerateSettings, validate
from . import contact_sheet
from .contact_sheet import SheetCell
from .figure import Visualization
from .forward import alpha_bars
from .trace import Trace, TraceRecorder, rms

MAX_RUNS = 12
COLUMNS = 7  # moments in a still, the picture not among them
COMPARABLE = (
    "prompt",
    "drop",
    "negative_prompt",
    "sampler",
    "steps",
    "guidance_scale",
    "seed",
    "embedding",
)


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """One run: its trace, what it was told, and how far each of its moments has come, 0 to 1."""

    trace: Trace
    options: Mapping[str, Any]
    progress: tuple[float, ...]

    def index_at(self, progress: float) -> int:
        """The last moment that has come no farther than `progress`; the first if there is none."""
        return max(bisect_right(self.progress, progress + 1e-6) - 1, 0)

    def latents(self, progress: float) -> torch.Tensor:
        """The latents (C, h, w) at unit variance, on the straight line between the two moments around."""
        if progress >= 1:
            return self.trace.steps[-1].x_next.float()
        moments, i = self.trace.steps, self.index_at(progress)
        first = moments[i].x_t_unit
        last = i + 1 == len(moments)
        second = moments[-1].x_next.float() if last else moments[i + 1].x_t_unit
        end = 1.0 if last else self.progress[i + 1]
        room = end - self.progress[i]
        share = (progress - self.progress[i]) / room if room > 0 else 0.0
        return torch.lerp(first, second, min(max(share, 0.0), 1.0))


def compare(
    runs: Sequence[Mapping[str, Any]], *, watch: Callable[[TraceRecorder], object] | None = None, **common: Any
) -> Visualization:
    """Make the pictures of two to twelve runs from the same noise and show them in lock-step.

    A run is a dictionary of what differs: `prompt`, `drop` (a word, or list of words, to leave out of
    the prompt), `negative_prompt`, `sampler`, `steps`, `guidance_scale`, `seed`, `embedding`; `common` are
    the settings of all. Without a seed all share one drawn by chance. `watch` is given every Recording
    and runs it to its end. Raises `UsageError`.

    >>> compare([{"prompt": "a red cat"}, {"prompt": "a blue cat"}], seed=7).save("two.webp")
    """
    wanted = _checked(runs, common)
    lanes = []
    for settings, told in wanted:
        prompt = settings.pop("prompt")
        recording = TraceRecorder(stream(prompt, **settings))
        if watch is None:
            for _ in recording:
                pass
        else:
            watch(recording)
        trace = recording.traces[0]
        lanes.append(ComparedRun(trace, told, compute_progress(trace)))
    return render(lanes)


def render(lanes: Sequence[ComparedRun]) -> Visualization:
    """The exhibit of lanes that are there already."""
    labels = _labels(lanes)
    grid = _grid(lanes)
    return Visualization(
        {
            "progress": grid,
            "runs": [_numbers(lane, lanes[0], label, grid) for lane, label in zip(lanes, labels, strict=True)],
        },
        still=lambda: _sheet(lanes, labels),
        film=lambda: _film(lanes, labels, grid),
    )


def combinations(**values: Sequence[Any]) -> list[dict[str, Any]]:
    """Every combination of several values: `crossed(steps=[5, 20], seed=[1, 2])` are four runs.

    The last varies fastest. Raises `UsageError` when there are fewer than two or more than twelve.
    """
    different = {name: list(dict.fromkeys(several)) for name, several in values.items()}
    _countable(math.prod(len(several) for several in different.values()))
    return [dict(zip(different, one, strict=True)) for one in itertools.product(*different.values())]


def _countable(count: int) -> None:
    if not 2 <= count <= MAX_RUNS:
        raise UsageError(
            f"{count} run{'s' * (count != 1)} cannot be compared, 2 to {MAX_RUNS} are wanted",
            "give fewer values" if count > 2 else "give something a second value",
        )


def _checked(
    runs: Sequence[Mapping[str, Any]], common: Mapping[str, Any]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The settings of every run, complete, and what it was told: all refused before any work."""
    _countable(len(runs))
    seed = secrets.randbelow(2**32) if common.get("seed") is None else common["seed"]
    found = []
    for run in runs:
        if strays := [name for name in run if name not in COMPARABLE]:
            raise UsageError(f"runs cannot differ in {strays[0]!r}", f"they can in: {', '.join(COMPARABLE)}")
        told = {**common, **run}
        settings: dict[str, Any] = {k: v for k, v in told.items() if k != "drop"} | {"images": 1}
        settings.setdefault("prompt", "")
        settings["seed"] = seed if told.get("seed") is None else told["seed"]
        validate(GenerateSettings, settings)
        for word in _several(told.get("drop")):
            settings["prompt"] = drop_word(word, **settings)
        found.append((settings, told))
    return found


def _several(words: Any) -> list[str]:
    return [words] if isinstance(words, str) else list(words or ())


def drop_word(word: str, prompt: str, **settings: Any) -> str:
    """The prompt less a word, or a learned token by its name, everywhere it stands.

    Raises `UsageError`, naming the words there are, when it is not one of them.
    """
    own = validate(GenerateSettings, settings | {"prompt": prompt})
    tokens = tokens_in_prompts([prompt], own.embedding)
    places = [(start, stop) for start, stop, token in find_mentions(prompt, tokens) if word in token.spellings]
    model = models.load(own.model, own.device, own.dtype, fast=own.fast)
    words = [w.text for w in text.word_spans(model, text.tokenize(model, prompt, tokens), tokens)]
    if not places and word.lower() in (w.lower() for w in words):
        before = r"(?<!\w)" if re.match(r"\w", word) else ""
        after = r"(?!\w)" if re.search(r"\w$", word) else ""
        bounded = f"{before}{re.escape(word)}{after}"
        places = [match.span() for match in re.finditer(bounded, prompt, re.IGNORECASE)]
    if not places:
        raise UsageError(
            f"the word {word[:60]!r} is not in the prompt {prompt[:60]!r}",
            f"the words are {', '.join(dict.fromkeys(words))}" if words else "there are no words",
        )
    for start, stop in reversed(places):
        prompt = prompt[:start] + prompt[stop:]
    return " ".join(prompt.split())


# --- how far ---------------------------------------------------------------------------------


def compute_progress(trace: Trace) -> tuple[float, ...]:
    """How far each moment has come from noise (0) to picture (1): the timesteps of noise that are gone.

    A moment's noise level is looked up among the model's timesteps, with fractions in between; steps
    that are made twice at one level (Heun's) share one progress.
    """
    curve = alpha_bars("own", trace.model.scheduler_config)
    logs = torch.log(curve.clamp(1e-12, 1 - 1e-12) / (1 - curve.clamp(1e-12, 1 - 1e-12)))
    rising = logs.flip(0)
    count = len(curve)
    found: list[float] = []
    for moment in trace.steps:
        bar = min(max(moment.alpha_bar, 1e-12), 1 - 1e-12)
        log = torch.tensor(bar / (1 - bar), dtype=torch.float64).log()
        i = int(torch.searchsorted(rising, log).clamp(1, count - 1))
        share = float((log - rising[i - 1]) / (rising[i] - rising[i - 1]))
        gone = (i - 1 + min(max(share, 0.0), 1.0)) / count
        found.append(max(gone, found[-1] if found else 0.0))
    return tuple(found)


def _grid(lanes: Sequence[ComparedRun]) -> list[float]:
    """Where to look: wherever the run of most steps makes one, and at the end."""
    most = max(lanes, key=lambda lane: len(lane.progress))
    return [*dict.fromkeys(most.progress), 1.0]


# --- numbers ---------------------------------------------------------------------------------


def _numbers(lane: ComparedRun, first: ComparedRun, label: str, grid: Sequence[float]) -> dict[str, Any]:
    """A run in numbers; differences are those to the first run."""
    picture = lane.trace.result
    pixels = images.to_tensor(picture.image) - images.to_tensor(first.trace.result.image)
    steps = zip(lane.trace.steps, lane.progress, strict=True)
    return {
        "label": label,
        "dropped": _several(lane.options.get("drop")),
        "settings": picture.record.settings.model_dump(mode="json"),
        "sha256": hashlib.sha256(picture.image.tobytes()).hexdigest(),
        "steps": [moment.numbers() | {"progress": progress} for moment, progress in steps],
        "rms_difference": [rms(lane.latents(p) - first.latents(p)) for p in grid],
        "pixel_difference": float(pixels.abs().mean() * 127.5),
    }


def _labels(lanes: Sequence[ComparedRun]) -> list[str]:
    """What makes each run different from the others, a line for each difference."""
    own = [lane.trace.result.record.settings for lane in lanes]
    lines: list[list[str]] = [[] for _ in lanes]
    dropped = [tuple(_several(lane.options.get("drop"))) for lane in lanes]
    prompts = [str(lane.options.get("prompt", "")) for lane in lanes]
    if len(set(prompts)) > 1:
        _add(lines, [f"“{prompt}”" for prompt in prompts])
    if len(set(dropped)) > 1:
        _add(lines, [f"without {', '.join(words)}" if words else "whole prompt" for words in dropped])
    for name in COMPARABLE[2:]:
        values = [getattr(settings, name) for settings in own]
        if len(set(values)) > 1:
            says = {"guidance_scale": "guidance", "negative_prompt": "not"}.get(name, name)
            shown = [f"{v:g}" if isinstance(v, float) else v or "none" if v != 0 else 0 for v in values]
            shown = [", ".join(v) if isinstance(v, tuple) else v for v in shown]
            _add(lines, [str(v) if name == "sampler" else f"{says} {v}" for v in shown])
    return ["\n".join(x) or "the same" for x in lines]


def _add(lines: list[list[str]], found: Sequence[str]) -> None:
    for own, words in zip(lines, found, strict=True):
        own += textwrap.wrap(words, 22, max_lines=4, placeholder="…")


# --- drawing ---------------------------------------------------------------------------------


def _side(lanes: Sequence[ComparedRun]) -> int:
    width = max(lanes[0].trace.result.image.width, 128)
    return min(width, 256 if len(lanes) < 5 else 160)


def _believed(lane: ComparedRun, progress: Sequence[float]) -> list[Image.Image]:
    """What the run takes the picture for at each progress; from 1 on, the picture."""
    places = [len(lane.progress) if p >= 1 else lane.index_at(p) for p in progress]
    return _decoded(lane, places, lambda i: lane.trace.steps[i].x0)


def _noisy(lane: ComparedRun, progress: Sequence[float]) -> list[Image.Image]:
    places = [len(lane.progress) if p >= 1 else lane.index_at(p) for p in progress]
    return _decoded(lane, places, lambda i: lane.trace.steps[i].x_t_unit)


def _decoded(lane: ComparedRun, places: Sequence[int], values: Callable[[int], torch.Tensor]) -> list[Image.Image]:
    """A picture for each place, every moment decoded once; the place after the last is the finished one."""
    different = [i for i in dict.fromkeys(places) if i < len(lane.progress)]
    made = dict(zip(different, lane.trace.decode([values(i) for i in different]), strict=True))
    made[len(lane.progress)] = lane.trace.result.image
    return [made[i] for i in places]


def _sheet(lanes: Sequence[ComparedRun], labels: Sequence[str]) -> Image.Image:
    """A row for each run, what it takes the picture for at seven moments, then the picture."""
    start, end = min(x.progress[0] for x in lanes), max(x.progress[-1] for x in lanes)
    columns = [start + (end - start) * i / (COLUMNS - 1) for i in range(COLUMNS)]
    rows = []
    for lane in lanes:
        cells = [
            SheetCell(picture, f"{100 * p:.0f} %, step {lane.index_at(p) + 1}")
            for picture, p in zip(_believed(lane, columns), columns, strict=True)
        ]
        rows.append([*cells, SheetCell(lane.trace.result.image, _ending(lane, lanes[0]))])
    title = "What each run takes the picture for, as its noise goes away; on the right, its picture"
    return contact_sheet.render_sheet(rows, side=_side(lanes), title=title, labels=labels)


def _ending(lane: ComparedRun, first: ComparedRun) -> str:
    if lane is first:
        return "the picture"
    found = images.to_tensor(lane.trace.result.image) - images.to_tensor(first.trace.result.image)
    return f"differs by {float(found.abs().mean() * 127.5):.1f}"


def _film(lanes: Sequence[ComparedRun], labels: Sequence[str], grid: Sequence[float]) -> Iterator[Image.Image]:
    """A column for each run: above, what it believes; below, the noisy latents, decoded."""
    above = [_believed(lane, grid) for lane in lanes]
    below = [_noisy(lane, grid) for lane in lanes]
    depth = max(label.count("\n") for label in labels)
    padded = [label + "\n " * (depth - label.count("\n")) for label in labels]
    side = _side(lanes) * (2 if _side(lanes) <= 128 and len(lanes) < 5 else 1)
    names = ("believed\npicture", "noisy\nlatents")
    for i, p in enumerate(grid):
        cells = [SheetCell(pictures[i], label) for pictures, label in zip(above, padded, strict=True)]
        steps = [
            SheetCell(
                pictures[i],
                f"step {lane.index_at(p) + 1} of {len(lane.progress)}" if p < 1 else "the picture",
            )
            for pictures, lane in zip(below, lanes, strict=True)
        ]
        yield contact_sheet.render_sheet([cells, steps], side=side, labels=names)
