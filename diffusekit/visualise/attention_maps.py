"""Which word drew what: cross-attention of every step as a map for every word, over the picture.

A word's map says, for every place, which share of the attention went to the word's tokens: the probabilities
of the layers that point best (`attention.pointing`), averaged over heads and layers and nothing else. "start"
is the mark before the words, "end" the mark after them and the padding; with these two, the shares of all
words sum to one at every place. A learned token of several vectors is one word: the sum of its places.
How well the maps point, and where they do not, is measured by `benchmarks/attention_localization.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from .. import attention as overheard
from .. import text
from ..embeddings import LearnedToken
from ..errors import UsageError
from ..models import Model
from ..pipeline import Generation, stream
from ..sampling import Step
from . import contact_sheet
from .contact_sheet import SheetCell
from .figure import Visualization
from .trace import Trace, TraceRecorder

SIDE = 160  # pixels a picture is wide in sheets and films
COLUMNS = 6

WordIndices = dict[str, tuple[int, ...]]  # a label, and which of a Heat's words it stands for


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """Where every word of a prompt was looked at, step by step.

    `words` are "start", the words that the model reads, "end"; `maps` (steps, words, h, w), float16, sum
    to one over words. `steps` and `timesteps` say which steps were recorded; `cut` is the text that did not
    fit into the model.
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
class _Kept:
    """The attention of one step by token, (B, T, h, w) in half precision."""

    step: int
    timestep: int
    maps: torch.Tensor


def word_maps(tokens: torch.Tensor, words: Sequence[text.WordSpan]) -> torch.Tensor:
    """Maps of token positions (..., T, h, w) as maps of "start", `words` and "end": sums of their places."""
    assert tokens.shape[-3] > max((w.stop for w in words), default=1), "more words than tokens"
    stop = words[-1].stop if words else 1
    ends = [(0, 1), *((w.start, w.stop) for w in words), (stop, tokens.shape[-3])]
    return torch.stack([tokens[..., a:b, :, :].sum(-3) for a, b in ends], dim=-3)


class AttentionMapRecorder:
    """Iterate for the Steps of a Stream; `traces` and `heats` hold one of each for every finished picture.

    `steps` are the steps (from 0) whose attention is kept, all without it; `layers` as in
    `attention.recording`, those of `attention.pointing` without it. `latest` is the attention of the last
    step that was kept, by token (B, T, h, w); `grouped` makes words of it. The pictures are not changed.
    """

    def __init__(
        self,
        generation: Generation,
        *,
        steps: Sequence[int] | None = None,
        layers: Sequence[str] | None = None,
    ):
        """Raises `UsageError` for a step that there will not be."""
        for step in steps or ():
            if not 0 <= step < generation.total:
                raise UsageError(f"there is no step {step}", f"the steps are 0 to {generation.total - 1}")
        self.generation = generation
        self.attention_maps: list[AttentionMaps] = []
        self.latest: torch.Tensor | None = None
        self._recording = TraceRecorder(generation)
        self._steps = None if steps is None else frozenset(steps)
        unet = generation.model.unet
        self._layers = overheard.localizing_layers(unet) if layers is None else layers

    @property
    def total(self) -> int:
        return self.generation.total

    @property
    def traces(self) -> list[Trace]:
        return self._recording.traces

    def __iter__(self) -> Iterator[Step]:
        unet, guided = self.generation.model.unet, self.generation.settings.guidance_scale != 1
        kept: list[_Kept] = []
        with overheard.record(unet, layers=self._layers, guided=guided) as maps:
            for step in self._recording:
                self._finish(kept)
                if step.index == 0:  # a batch begins, or begins again
                    kept = []
                if self._steps is None or step.index in self._steps:
                    self.latest = maps.maps()
                    kept.append(_Kept(step.index, step.timestep, self.latest.half()))
                yield step
        self._finish(kept)

    def _finish(self, kept: list[_Kept]) -> None:
        """Make heats of the pictures that came out since the last step."""
        for i, trace in enumerate(self.traces[len(self.attention_maps) :]):
            reading = text.tokenize(trace.model, trace.prompt, self.generation.tokens)
            words = text.word_spans(trace.model, reading, self.generation.tokens)
            found = [word_maps(each.maps[i].float(), words).half() for each in kept]
            self.attention_maps.append(
                AttentionMaps(
                    words=("start", *(w.text for w in words), "end"),
                    maps=torch.stack(found) if found else torch.empty(0, len(words) + 2, 0, 0),
                    steps=tuple(each.step for each in kept),
                    timesteps=tuple(each.timestep for each in kept),
                    truncated=reading.truncated,
                )
            )


def record_attention_maps(prompt: str, **settings: Any) -> tuple[Trace, AttentionMaps]:
    """Make one picture and keep its way and its attention: `watch("A beautiful galaxy", seed=7)`.

    Takes what `generate` takes; raises what it raises.
    """
    settings["images"] = 1
    watching = AttentionMapRecorder(stream(prompt, **settings))
    for _ in watching:
        pass
    return watching.traces[0], watching.attention_maps[0]


def attention(prompt: str, words: Sequence[str] = (), **settings: Any) -> Visualization:
    """Make a picture and show where the model looked for each of `words`, all of the prompt's without it.

    Takes the settings of `generate`. Raises `UsageError`, before any work, for a word that is not in the
    prompt.
    """
    settings["images"] = 1
    watching = AttentionMapRecorder(stream(prompt, **settings))
    asked = find_words(watching.generation.model, prompt, words, watching.generation.tokens)
    for _ in watching:
        pass
    return render(watching.traces[0], watching.attention_maps[0], asked)


def find_words(
    model: Model, prompt: str, asked: Sequence[str] = (), tokens: Sequence[LearnedToken] = ()
) -> WordIndices:
    """Which of a Heat's words are meant: each of the prompt's without `asked`.

    `tokens` are the learned tokens of the prompt. A word is read as the prompt is, so a learned token may
    be spelled as in prompts. Several words are found where they stand in a row; what stands there more than
    once is shown as one, summed. Raises `UsageError` for what is not there.
    """
    reading = text.tokenize(model, prompt, tokens)
    there = [word.text for word in text.word_spans(model, reading, tokens)]
    if not there:
        raise UsageError("there is no word in the prompt", "say what the picture shows")
    found: WordIndices = {}
    for each in asked or there:
        said = [each]
        if asked:
            said = [w.text for w in text.word_spans(model, text.tokenize(model, each, tokens), tokens)]
        starts = [i for i in range(len(there)) if said and there[i : i + len(said)] == said]
        if not starts:
            raise UsageError(
                f"the word {each[:60]!r} {_missing(each, reading.truncated)}",
                f"the words are {', '.join(dict.fromkeys(there))}",
            )
        found[each] = tuple(sorted({i + j + 1 for i in starts for j in range(len(said))}))
    return found


def _missing(word: str, cut: str) -> str:
    if word.strip() and word.strip().casefold() in cut.casefold():
        return "was cut: the prompt is too long for this model"
    return "is not in the prompt"


def render(trace: Trace, heat: AttentionMaps, asked: WordIndices) -> Visualization:
    """The exhibit of a run that was watched: `asked` as `find` gives it.

    A still shows the picture and each word's map over it, averaged over steps; a film goes through the
    steps. Every map is as bright as its own peak allows. The numbers are shares, 0 to 1, and where in the
    picture, in pixels, the most looked-at place lies; "start", "end" and the words sum to one.
    """
    maps = {word: heat.maps[:, list(places)].float().sum(1) for word, places in asked.items()}
    return Visualization(
        numbers={
            "settings": trace.result.record.settings.model_dump(mode="json"),
            "words": list(heat.words),
            "cut": heat.truncated,
            "averaged": _numbers(heat.mean_over_steps(), heat, asked, trace.result.image.size),
            "steps": [
                {"step": step + 1, "timestep": timestep}
                | {"words": _numbers(heat.maps[i].float(), heat, asked, trace.result.image.size)}
                for i, (step, timestep) in enumerate(zip(heat.steps, heat.timesteps, strict=True))
            ],
        },
        still=lambda: _sheet(trace, heat, maps),
        film=lambda: _film(trace, heat, maps),
        record=trace.result.record,
    )


def peak_position(found: torch.Tensor, size: tuple[int, int]) -> tuple[float, float]:
    """(x, y) in pixels of a picture of `size` (W, H): the middle of the highest cell of a map (h, w)."""
    h, w = found.shape
    i = int(found.argmax())
    return (i % w + 0.5) * size[0] / w, (i // w + 0.5) * size[1] / h


def _numbers(
    maps: torch.Tensor, heat: AttentionMaps, asked: WordIndices, size: tuple[int, int]
) -> list[dict[str, Any]]:
    """A row for every word asked for, then "start" and "end"; `maps` (words, h, w)."""
    rows = [*asked.items(), ("start", (0,)), ("end", (len(heat.words) - 1,))]
    found = []
    for word, places in rows:
        each = maps[list(places)].sum(0)
        x, y = peak_position(each, size)
        found.append(
            {
                "word": word,
                "share": round(float(each.mean()), 5),
                "peak": {"x": x, "y": y, "share": round(float(each.max()), 5)},
            }
        )
    return found


def _sheet(trace: Trace, heat: AttentionMaps, maps: dict[str, torch.Tensor]) -> Image.Image:
    means = {word: found.mean(0) for word, found in maps.items()}
    return _page(
        (trace.result.image, "the picture"),
        means,
        {word: float(m.max()) for word, m in means.items()},
        f"where the model looked for each word · mean of {len(heat.steps)} steps · brightest: the word's own peak",
    )


def _film(trace: Trace, heat: AttentionMaps, maps: dict[str, torch.Tensor]) -> Iterator[Image.Image]:
    """Every step over the picture that the model believed in then; last the picture and the means."""
    most = {word: float(found.max()) for word, found in maps.items()}
    moments = [trace.steps[step] for step in heat.steps]
    for i, picture in enumerate(trace.decode([moment.x0 for moment in moments])):
        told = f"step {heat.steps[i] + 1} of {len(trace.steps)}, t = {heat.timesteps[i]}"
        title = f"{told} · brightest: the word's own peak of all steps"
        yield _page((picture, "believed picture x̂₀"), {w: m[i] for w, m in maps.items()}, most, title)
    title = f"mean of {len(heat.steps)} steps · brightest: the word's own peak of all steps"
    yield _page((trace.result.image, "the picture"), {w: m.mean(0) for w, m in maps.items()}, most, title)


def _page(
    picture: tuple[Image.Image, str], maps: dict[str, torch.Tensor], most: dict[str, float], title: str
) -> Image.Image:
    """A picture and every word's map (h, w) over it, in rows."""
    cells = [SheetCell(picture[0], f"{picture[1]}\n\n")]
    for word, found in maps.items():
        told = f"{word}\nmean {_percent(found.mean())}\npeak {_percent(found.max())}"
        cells.append(SheetCell(contact_sheet.overlay_map(picture[0], found, most=most[word]), told))
    rows = [cells[i : i + COLUMNS] for i in range(0, len(cells), COLUMNS)]
    return contact_sheet.render_sheet(rows, side=SIDE, title=title)


def _percent(share: torch.Tensor) -> str:
    return f"{100 * float(share):.2g} %"
