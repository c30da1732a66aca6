"""Runs side by side (verb `compare`): the effect of another prompt, sampler, seed, guidance or step count.

Runs are aligned by how much noise is left, not by step number. Five steps and twenty meet wherever both have
the same noise level.
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
from typing import Any, Unpack

import torch
from PIL import Image

from .. import images, models, text
from ..embeddings import find_mentions, tokens_in_prompts
from ..errors import UsageError
from ..options import GenerateOptions
from ..pipeline import stream
from ..sampling import Step
from ..settings import GenerateSettings, validate
from . import contact_sheet
from .contact_sheet import SheetCell
from .figure import Visualization
from .forward import alpha_bars
from .trace import Trace, TraceRecorder, rms

MAX_RUNS = 12
COLUMNS = 7  # progress values in a still, without the final image
COMPARABLE = ("prompt", "drop", "negative_prompt", "sampler", "steps", "guidance_scale", "seed", "embedding")


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """One run: its trace, the options it was given, and the progress of each step, from 0 to 1."""

    trace: Trace
    options: Mapping[str, Any]
    progress: tuple[float, ...]

    @property
    def dropped(self) -> list[str]:
        """The words that were left out of the prompt."""
        return _as_list(self.options.get("drop"))

    def index_at(self, progress: float) -> int:
        """The last step that is not beyond `progress`, or the first step."""
        return max(bisect_right(self.progress, progress + 1e-6) - 1, 0)

    def latents(self, progress: float) -> torch.Tensor:
        """The latents (C, h, w) at unit variance, interpolated linearly between the two nearest steps."""
        steps, i = self.trace.steps, self.index_at(progress)
        final = steps[-1].x_next.float()
        if progress >= 1:
            return final
        is_last = i + 1 == len(steps)
        after = final if is_last else steps[i + 1].x_t_unit
        end = 1.0 if is_last else self.progress[i + 1]
        distance = end - self.progress[i]
        weight = (progress - self.progress[i]) / distance if distance > 0 else 0.0
        return torch.lerp(steps[i].x_t_unit, after, min(max(weight, 0.0), 1.0))


class ComparisonRecorder:
    """Iterate over the Steps of several runs that start from the same noise. Then `runs` holds the results.

    Arguments are those of `compare`. All runs are checked before the first one starts.
    """

    def __init__(
        self,
        runs: Sequence[Mapping[str, Any]],
        *,
        prompt: str = "",
        model: str | models.Model = "mini",
        **common: Unpack[GenerateOptions],
    ):
        """Raises `UsageError`."""
        plans = _plan(runs, {"prompt": prompt, "model": model, **common})
        self._options = [options for _, options in plans]
        self._recorder = TraceRecorder(*(stream(**settings) for settings, _ in plans))

    @property
    def total(self) -> int:
        """The number of Steps of all runs."""
        return self._recorder.total

    @property
    def runs(self) -> list[ComparedRun]:
        """The runs that are finished."""
        pairs = zip(self._recorder.traces, self._options, strict=False)
        return [ComparedRun(trace, options, compute_progress(trace)) for trace, options in pairs]

    def __iter__(self) -> Iterator[Step]:
        return iter(self._recorder)


def compare(
    runs: Sequence[Mapping[str, Any]],
    *,
    prompt: str = "",
    model: str | models.Model = "mini",
    **common: Unpack[GenerateOptions],
) -> Visualization:
    """Generate the images of two to twelve runs from the same noise and show them side by side.

    A run is a dictionary of what differs: `prompt`, `drop` (one or several words to leave out of the
    prompt), `negative_prompt`, `sampler`, `steps`, `guidance_scale`, `seed`, `embedding`. The other arguments
    apply to all runs. Without a seed, all runs share a random one. Raises `UsageError`.

    >>> compare([{"prompt": "a red cat"}, {"prompt": "a blue cat"}], seed=7).save("two.webp")
    """
    recorder = ComparisonRecorder(runs, prompt=prompt, model=model, **common)
    for _ in recorder:
        pass
    return render(recorder.runs)


def combinations(**values: Sequence[Any]) -> list[dict[str, Any]]:
    """List every combination of several values: `combinations(steps=[5, 20], seed=[1, 2])` gives four runs.

    The last one varies fastest. Raises `UsageError` for fewer than two or more than twelve.
    """
    distinct = {name: list(dict.fromkeys(several)) for name, several in values.items()}
    _check_count(math.prod(len(several) for several in distinct.values()))
    return [dict(zip(distinct, one, strict=True)) for one in itertools.product(*distinct.values())]


def _check_count(count: int) -> None:
    if not 2 <= count <= MAX_RUNS:
        raise UsageError(
            f"cannot compare {count} run{'s' * (count != 1)}, expected 2 to {MAX_RUNS}",
            "give fewer values" if count > 2 else "give a second value for one of the settings",
        )


def _plan(runs: Sequence[Mapping[str, Any]], common: Mapping[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Complete and check every run: (settings of `stream`, options as given)."""
    _check_count(len(runs))
    seed = _seed(common)
    seed = secrets.randbelow(2**32) if seed is None else seed
    plans = []
    for run in runs:
        if unknown := [name for name in run if name not in COMPARABLE]:
            raise UsageError(f"cannot compare values of {unknown[0]!r}", f"comparable: {', '.join(COMPARABLE)}")
        options = {**common, **run}
        settings: dict[str, Any] = {name: value for name, value in options.items() if name != "drop"} | {"images": 1}
        own = _seed(options)
        settings["seed"] = seed if own is None else own
        validate(GenerateSettings, {name: value for name, value in settings.items() if name != "model"})
        for word in _as_list(options.get("drop")):
            settings["prompt"] = drop_word(word, **settings)
        plans.append((settings, options))
    return plans


def _seed(options: Mapping[str, Any]) -> int | None:
    """Return the seed of some options, or None where it is random: not given, None or -1."""
    return validate(GenerateSettings, {"seed": options.get("seed")}).seed


def _as_list(words: Any) -> list[str]:
    return [words] if isinstance(words, str) else list(words or ())


def drop_word(word: str, prompt: str, *, model: str | models.Model = "mini", **settings: Any) -> str:
    """Remove a word, or a learned token by its name, everywhere in a prompt.

    Raises `UsageError` for a word that is not in the prompt. The hint lists the words that are.
    """
    own = validate(GenerateSettings, settings | {"prompt": prompt})
    tokens = tokens_in_prompts([prompt], own.embedding)
    spans = [(start, stop) for start, stop, token in find_mentions(prompt, tokens) if word in token.spellings]
    loaded = models.resolve_for(model, own)
    words = [w.text for w in text.word_spans(loaded, text.tokenize(loaded, prompt, tokens), tokens)]
    if not spans and word.lower() in (w.lower() for w in words):
        before = r"(?<!\w)" if re.match(r"\w", word) else ""
        after = r"(?!\w)" if re.search(r"\w$", word) else ""
        spans = [m.span() for m in re.finditer(f"{before}{re.escape(word)}{after}", prompt, re.IGNORECASE)]
    if not spans:
        raise UsageError(
            f"the word {word[:60]!r} is not in the prompt {prompt[:60]!r}",
            f"the words are {', '.join(dict.fromkeys(words))}" if words else "the prompt contains no word",
        )
    for start, stop in reversed(spans):
        prompt = prompt[:start] + prompt[stop:]
    return " ".join(prompt.split())


def compute_progress(trace: Trace) -> tuple[float, ...]:
    """Compute how far each step is from noise (0) to image (1): the share of the noise timesteps that are done.

    The noise level of a step is looked up among the model's timesteps and interpolated. Steps at the same
    level, as Heun's, share one value.
    """
    curve = alpha_bars("own", trace.model.scheduler_config).clamp(1e-12, 1 - 1e-12)
    log_snr = torch.log(curve / (1 - curve)).flip(0)
    count = len(curve)
    progress: list[float] = []
    for step in trace.steps:
        alpha_bar = min(max(step.alpha_bar, 1e-12), 1 - 1e-12)
        own = torch.tensor(alpha_bar / (1 - alpha_bar), dtype=torch.float64).log()
        i = int(torch.searchsorted(log_snr, own).clamp(1, count - 1))
        fraction = float((own - log_snr[i - 1]) / (log_snr[i] - log_snr[i - 1]))
        value = (i - 1 + min(max(fraction, 0.0), 1.0)) / count
        progress.append(max(value, progress[-1] if progress else 0.0))
    return tuple(progress)


def render(runs: Sequence[ComparedRun]) -> Visualization:
    """Show finished runs. Differences are measured to the first one."""
    labels = _labels(runs)
    grid = _progress_grid(runs)
    return Visualization(
        {
            "progress": grid,
            "runs": [_numbers(run, runs[0], label, grid) for run, label in zip(runs, labels, strict=True)],
        },
        still=lambda: _still(runs, labels),
        film=lambda: _film(runs, labels, grid),
    )


def _progress_grid(runs: Sequence[ComparedRun]) -> list[float]:
    """The progress values of the run with most steps, and the end."""
    longest = max(runs, key=lambda run: len(run.progress))
    return [*dict.fromkeys(longest.progress), 1.0]


def _numbers(run: ComparedRun, first: ComparedRun, label: str, grid: Sequence[float]) -> dict[str, Any]:
    result = run.trace.result
    steps = zip(run.trace.steps, run.progress, strict=True)
    return {
        "label": label,
        "dropped": run.dropped,
        "settings": result.record.settings.model_dump(mode="json"),
        "sha256": hashlib.sha256(result.image.tobytes()).hexdigest(),
        "steps": [step.numbers() | {"progress": progress} for step, progress in steps],
        "rms_difference": [rms(run.latents(p) - first.latents(p)) for p in grid],
        "pixel_difference": _pixel_difference(run, first),
    }


def _pixel_difference(run: ComparedRun, first: ComparedRun) -> float:
    """Mean absolute difference of two final images, of 255."""
    difference = images.to_tensor(run.trace.result.image) - images.to_tensor(first.trace.result.image)
    return float(difference.abs().mean() * 127.5)


def _labels(runs: Sequence[ComparedRun]) -> list[str]:
    """What distinguishes each run from the others, one line for each difference."""
    lines: list[list[str]] = [[] for _ in runs]

    def add(texts: Sequence[str]) -> None:
        for own, words in zip(lines, texts, strict=True):
            own += textwrap.wrap(words, 22, max_lines=4, placeholder="…")

    prompts = [str(run.options.get("prompt", "")) for run in runs]
    if len(set(prompts)) > 1:
        add([f"“{prompt}”" for prompt in prompts])
    if len({tuple(run.dropped) for run in runs}) > 1:
        add([f"without {', '.join(run.dropped)}" if run.dropped else "whole prompt" for run in runs])
    for name in COMPARABLE[2:]:
        values = [getattr(run.trace.result.record.settings, name) for run in runs]
        if len(set(values)) > 1:
            prefix = {"guidance_scale": "guidance ", "negative_prompt": "not ", "sampler": ""}.get(name, f"{name} ")
            add([prefix + _format_value(value) for value in values])
    return ["\n".join(own) or "the same" for own in lines]


def _format_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return "none" if value in ("", None) else str(value)


# --- drawing ---------------------------------------------------------------------------------


def _cell_side(runs: Sequence[ComparedRun]) -> int:
    width = max(runs[0].trace.result.image.width, 128)
    return min(width, 256 if len(runs) < 5 else 160)


def _predicted_images(run: ComparedRun, grid: Sequence[float]) -> list[Image.Image]:
    """x̂₀ at each progress value. From 1 on, the final image."""
    return _decode(run, grid, lambda i: run.trace.steps[i].x0)


def _noisy_images(run: ComparedRun, grid: Sequence[float]) -> list[Image.Image]:
    """x_t, decoded, at each progress value. From 1 on, the final image."""
    return _decode(run, grid, lambda i: run.trace.steps[i].x_t_unit)


def _decode(run: ComparedRun, grid: Sequence[float], tensor: Callable[[int], torch.Tensor]) -> list[Image.Image]:
    """One image for each progress value. Each step is decoded once."""
    indices = [len(run.progress) if p >= 1 else run.index_at(p) for p in grid]
    distinct = [i for i in dict.fromkeys(indices) if i < len(run.progress)]
    decoded = dict(zip(distinct, run.trace.decode([tensor(i) for i in distinct]), strict=True))
    decoded[len(run.progress)] = run.trace.result.image
    return [decoded[i] for i in indices]


def _still(runs: Sequence[ComparedRun], labels: Sequence[str]) -> Image.Image:
    """One row per run: its predicted image at seven progress values, then its final image."""
    start, end = min(run.progress[0] for run in runs), max(run.progress[-1] for run in runs)
    grid = [start + (end - start) * i / (COLUMNS - 1) for i in range(COLUMNS)]
    rows = []
    for run in runs:
        cells = [
            SheetCell(image, f"{100 * p:.0f} %, step {run.index_at(p) + 1}")
            for image, p in zip(_predicted_images(run, grid), grid, strict=True)
        ]
        caption = "final image" if run is runs[0] else f"differs by {_pixel_difference(run, runs[0]):.1f}"
        rows.append([*cells, SheetCell(run.trace.result.image, caption)])
    title = "The predicted image x̂₀ of each run as noise is removed, and the final image"
    return contact_sheet.render_sheet(rows, side=_cell_side(runs), title=title, labels=labels)


def _film(runs: Sequence[ComparedRun], labels: Sequence[str], grid: Sequence[float]) -> Iterator[Image.Image]:
    """One column per run: the predicted image above the noisy latents, decoded."""
    predicted = [_predicted_images(run, grid) for run in runs]
    noisy = [_noisy_images(run, grid) for run in runs]
    depth = max(label.count("\n") for label in labels)
    padded = [label + "\n " * (depth - label.count("\n")) for label in labels]
    side = _cell_side(runs) * (2 if _cell_side(runs) <= 128 and len(runs) < 5 else 1)
    for i, p in enumerate(grid):
        above = [SheetCell(strip[i], label) for strip, label in zip(predicted, padded, strict=True)]
        captions = [f"step {run.index_at(p) + 1} of {len(run.progress)}" if p < 1 else "final image" for run in runs]
        below = [SheetCell(strip[i], caption) for strip, caption in zip(noisy, captions, strict=True)]
        yield contact_sheet.render_sheet(
            [above, below], side=side, labels=("predicted\nimage x̂₀", "noisy\nlatents x_t")
        )
