"""Cross-attention maps (verb `attention`): where the model looked for each word, at every step, over the image.

A word's map gives, for each position of the image, the share of attention that the word's tokens receive.
It is the mean of the attention probabilities over all heads of the layers that localize best
(`attention.localizing_layers`), without further processing. "start" is the begin token, "end" the end token
and the padding. With these two, the shares of all words sum to one at every position. A learned token of
several vectors counts as one word. `benchmarks/attention_localization.py` measures how well the maps
localize things.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from PIL import Image

from .. import attention as cross_attention
from .. import prompt_encoder, text
from ..embeddings import LearnedToken
from ..errors import UsageError
from ..models import Model
from ..pipeline import Generation, stream
from ..prompt import ParsedPrompt, parse
from ..sampling import Step
from . import contact_sheet
from .contact_sheet import SheetCell
from .figure import Visualization
from .trace import StreamOptions, Trace, TraceRecorder

SIDE = 160  # width of an image in sheets and films, in pixels
COLUMNS = 6

WordIndices = Mapping[str, Sequence[int]]  # a label, and the indices in AttentionMaps.words that it stands for


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """Where the model looked for every word of a prompt, step by step.

    `words` are "start", the words of the prompt, "end". `maps` (steps, words, h, w), float16, sums to one
    over words. `steps` (from 0) and `timesteps` are those that were recorded. `truncated` is the part of
    the prompt that did not fit into the model.
    """

    words: tuple[str, ...]
    maps: torch.Tensor
    steps: tuple[int, ...]
    timesteps: tuple[int, ...]
    truncated: str = ""

    def mean_over_steps(self) -> torch.Tensor:
        """The mean over steps (words, h, w), float32."""
        return self.maps.float().mean(0)


@dataclass(frozen=True, eq=False)
class _TokenMaps:
    """The attention of one step by token, (B, T, h, w), float16."""

    step: int
    timestep: int
    maps: torch.Tensor


def word_maps(
    token_maps: torch.Tensor, words: Sequence[text.WordSpan], *, context_length: int | None = None
) -> torch.Tensor:
    """Sum maps of token positions (..., T, h, w) to maps of "start", each of `words`, and "end".

    A long prompt has several windows of `context_length` positions, each with its own begin and end.
    """
    total = token_maps.shape[-3]
    assert total > max((word.stop for word in words), default=1), "more words than tokens"
    starts = list(range(0, total, context_length or total))
    positions = [list(range(word.start, word.stop)) for word in words]
    rest = sorted(set(range(total)).difference(starts, *positions))
    return torch.stack([token_maps[..., each, :, :].sum(-3) for each in (starts, *positions, rest)], dim=-3)


class AttentionMapRecorder:
    """Iterate over the Steps of a Generation and record its trace and its attention maps.

    `traces` and `attention_maps` hold one entry for each image that is finished. `latest` is the attention
    of the last recorded step by token, (B, T, h, w). Recording does not change the images.
    """

    def __init__(
        self,
        generation: Generation,
        *,
        steps: Sequence[int] | None = None,
        layers: Sequence[str] | None = None,
    ):
        """`steps` (from 0) are recorded, by default all. `layers` are as in `attention.record`.

        By default the layers are `attention.localizing_layers`. Raises `UsageError` for a step that is out
        of range.
        """
        for prompt in generation.prompts:  # those whose words have no place are refused before the run
            prompt_encoder.word_spans(generation.model, generation.parse(prompt), generation.tokens)
        for step in steps or ():
            if not 0 <= step < generation.total:
                raise UsageError(f"step {step} is out of range", f"the steps are 0 to {generation.total - 1}")
        self.generation = generation
        self.attention_maps: list[AttentionMaps] = []
        self.latest: torch.Tensor | None = None
        self._trace_recorder = TraceRecorder(generation)
        self._steps = None if steps is None else frozenset(steps)
        self._layers = cross_attention.localizing_layers(generation.model.unet) if layers is None else layers

    @property
    def total(self) -> int:
        """The number of Steps of the generation."""
        return self.generation.total

    @property
    def traces(self) -> list[Trace]:
        return self._trace_recorder.traces

    def __iter__(self) -> Iterator[Step]:
        unet, guided = self.generation.model.unet, self.generation.is_guided
        batch: list[_TokenMaps] = []
        with cross_attention.record(unet, layers=self._layers, guided=guided) as recorder:
            for step in self._trace_recorder:
                self._collect_finished(batch)
                if step.index == self.generation.first_step:  # a batch starts, or restarts
                    batch = []
                if self._steps is None or step.index in self._steps:
                    self.latest = recorder.maps()
                    batch.append(_TokenMaps(step.index, step.timestep, self.latest.half()))
                yield step
        self._collect_finished(batch)

    def _collect_finished(self, batch: Sequence[_TokenMaps]) -> None:
        """Add the maps of the images that were finished since the last step."""
        tokens = self.generation.tokens
        for i, trace in enumerate(self.traces[len(self.attention_maps) :]):
            words, truncated = prompt_encoder.word_spans(trace.model, self.generation.parse(trace.prompt), tokens)
            length = trace.model.context_length
            maps = [word_maps(step.maps[i].float(), words, context_length=length).half() for step in batch]
            self.attention_maps.append(
                AttentionMaps(
                    words=("start", *(word.text for word in words), "end"),
                    maps=torch.stack(maps) if maps else torch.empty(0, len(words) + 2, 0, 0),
                    steps=tuple(step.step for step in batch),
                    timesteps=tuple(step.timestep for step in batch),
                    truncated=truncated,
                )
            )


def record_attention_maps(prompt: str, **options: Unpack[StreamOptions]) -> tuple[Trace, AttentionMaps]:
    """Generate one image and record its steps and attention: `record_attention_maps("A beautiful galaxy", seed=7)`.

    Takes the options of `generate` and raises the same errors.
    """
    options["images"] = 1
    recorder = AttentionMapRecorder(stream(prompt, **options))
    for _ in recorder:
        pass
    return recorder.traces[0], recorder.attention_maps[0]


def attention(prompt: str, words: Sequence[str] = (), **options: Unpack[StreamOptions]) -> Visualization:
    """Generate an image and show where the model looked for each of `words`, by default for all of the prompt.

    Takes the options of `generate`. Raises `UsageError`, before any work, for a word that is not in the
    prompt.
    """
    options["images"] = 1
    recorder = AttentionMapRecorder(stream(prompt, **options))
    generation = recorder.generation
    indices = find_words(generation.model, generation.parse(prompt), words, generation.tokens)
    for _ in recorder:
        pass
    return render(recorder.traces[0], recorder.attention_maps[0], indices)


def find_words(
    model: Model, prompt: str | ParsedPrompt, requested: Sequence[str] = (), tokens: Sequence[LearnedToken] = ()
) -> WordIndices:
    """Map each requested word to its indices in `AttentionMaps.words`. By default all words of the prompt.

    `tokens` are the learned tokens of the prompt. Words are tokenized like the prompt, so learned tokens may
    be spelled as in prompts. A request of several words matches where they stand together. A word that occurs
    more than once has one map, the sum. Raises `UsageError` for a word that is not in the prompt.
    """
    parsed = parse(prompt, 1, syntax="plain") if isinstance(prompt, str) else prompt
    spans, truncated = prompt_encoder.word_spans(model, parsed, tokens)
    present = [word.text for word in spans]
    if not present:
        raise UsageError("the prompt contains no word", "describe what the image shows")
    indices: dict[str, tuple[int, ...]] = {}
    for label in requested or present:
        words = [label]
        if requested:
            words = [w.text for w in text.word_spans(model, text.tokenize(model, label, tokens), tokens)]
        starts = [i for i in range(len(present)) if words and present[i : i + len(words)] == words]
        if not starts:
            raise UsageError(
                f"the word {label[:60]!r} {_absence(label, truncated)}",
                f"the words are {', '.join(dict.fromkeys(present))}",
            )
        indices[label] = tuple(sorted({start + j + 1 for start in starts for j in range(len(words))}))
    return indices


def _absence(word: str, truncated: str) -> str:
    if word.strip() and word.strip().casefold() in truncated.casefold():
        return "was cut: the prompt is too long for this model"
    return "is not in the prompt"


def render(trace: Trace, attention_maps: AttentionMaps, words: WordIndices) -> Visualization:
    """Show recorded attention maps. `words` are chosen by `find_words`.

    A still shows the image and each word's map over it, averaged over steps. A film shows the steps. Each map
    is scaled to its own maximum. The numbers are shares from 0 to 1, and the position of each maximum in
    pixels. The shares of "start", "end" and all words sum to one.
    """
    maps = {label: attention_maps.maps[:, list(indices)].float().sum(1) for label, indices in words.items()}
    size = trace.result.image.size
    steps = zip(attention_maps.steps, attention_maps.timesteps, attention_maps.maps, strict=True)
    return Visualization(
        numbers={
            "settings": trace.result.record.settings.model_dump(mode="json"),
            "words": list(attention_maps.words),
            "cut": attention_maps.truncated,
            "averaged": _numbers(attention_maps.mean_over_steps(), words, size),
            "steps": [
                {"step": step + 1, "timestep": timestep, "words": _numbers(step_maps.float(), words, size)}
                for step, timestep, step_maps in steps
            ],
        },
        still=lambda: _still(trace, attention_maps, maps),
        film=lambda: _film(trace, attention_maps, maps),
        record=trace.result.record,
    )


def peak_position(values: torch.Tensor, size: tuple[int, int]) -> tuple[float, float]:
    """Return the center (x, y) of the highest cell of a map (h, w), in pixels of an image of `size` (W, H)."""
    h, w = values.shape
    i = int(values.argmax())
    return (i % w + 0.5) * size[0] / w, (i // w + 0.5) * size[1] / h


def _numbers(maps: torch.Tensor, words: WordIndices, size: tuple[int, int]) -> list[dict[str, Any]]:
    """One row for each requested word, then "start" and "end". `maps` is (words, h, w)."""
    rows = []
    for label, indices in [*words.items(), ("start", (0,)), ("end", (len(maps) - 1,))]:
        values = maps[list(indices)].sum(0)
        x, y = peak_position(values, size)
        peak = {"x": x, "y": y, "share": round(float(values.max()), 5)}
        rows.append({"word": label, "share": round(float(values.mean()), 5), "peak": peak})
    return rows


# --- drawing ---------------------------------------------------------------------------------


def _still(trace: Trace, attention_maps: AttentionMaps, maps: Mapping[str, torch.Tensor]) -> Image.Image:
    means = {label: values.mean(0) for label, values in maps.items()}
    maxima = {label: float(values.max()) for label, values in means.items()}
    title = (
        f"Where the model looked for each word (mean of {len(attention_maps.steps)} steps, each map scaled to its peak)"
    )
    return _sheet(SheetCell(trace.result.image, "final image"), means, maxima, title)


def _film(trace: Trace, attention_maps: AttentionMaps, maps: Mapping[str, torch.Tensor]) -> Iterator[Image.Image]:
    """Every step over its predicted image, then the means over the finished image."""
    maxima = {label: float(values.max()) for label, values in maps.items()}
    scale = "Each map is scaled to its peak over all steps"
    predicted = trace.decode([trace.steps[step].x0 for step in attention_maps.steps])
    for i, image in enumerate(predicted):
        step = f"step {attention_maps.steps[i] + 1} of {len(trace.steps)}, t = {attention_maps.timesteps[i]}"
        at_step = {label: values[i] for label, values in maps.items()}
        yield _sheet(SheetCell(image, "predicted image x̂₀"), at_step, maxima, f"{step}. {scale}")
    means = {label: values.mean(0) for label, values in maps.items()}
    title = f"mean of {len(attention_maps.steps)} steps. {scale}"
    yield _sheet(SheetCell(trace.result.image, "final image"), means, maxima, title)


def _sheet(image: SheetCell, maps: Mapping[str, torch.Tensor], maxima: Mapping[str, float], title: str) -> Image.Image:
    """An image, and the map (h, w) of each word over it."""
    assert image.image is not None
    cells = [SheetCell(image.image, f"{image.caption}\n\n")]
    for label, values in maps.items():
        overlay = contact_sheet.overlay_map(image.image, values, vmax=maxima[label])
        cells.append(SheetCell(overlay, f"{label}\nmean {_percent(values.mean())}\npeak {_percent(values.max())}"))
    rows = [cells[i : i + COLUMNS] for i in range(0, len(cells), COLUMNS)]
    return contact_sheet.render_sheet(rows, side=SIDE, title=title)


def _percent(share: torch.Tensor) -> str:
    return f"{100 * float(share):.2g} %"
