"""How a text is read: its pieces and their ids, what was cut, and where the words lie for the model.

Two places are shown: the token table, where every piece is a row whatever stands beside it, and the
text encoder's states, where a word has taken in what stands before it. Knows no U-Net and no pixels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from .. import models, text
from ..display import printable
from ..embeddings import LearnedToken, Vocabulary, check_compatible, combine, tokens_in_prompts
from ..errors import UsageError
from ..settings import GenerateSettings, validate
from . import plots
from .contact_sheet import INK, SOFT
from .figure import Visualization

KINDS = {
    "begin": "#56b4e9",
    "word": "#f0b64d",
    "learned": "#d98bb5",
    "end": "#2fae8a",
    "padding": "#e4e6e8",
}
_FEW = 10  # words of a prompt; of more, the map shows no related ones
_LIKE, _ALIKE = 2, 0.5  # related words a word, and the least cosine of one
_SMALL = 2000  # words of a vocabulary that is wholly read for them


@dataclass(frozen=True)
class MapPoint:
    """A state of the text encoder in the map. A related word stands where `instead_of` stood."""

    text: str
    x: float
    y: float
    instead_of: str = ""


@dataclass(frozen=True, eq=False)
class _Text:
    """A prompt, the model that reads it, and how it was read."""

    model: models.Model
    prompt: str
    tokens: tuple[LearnedToken, ...]
    reading: text.TokenizedPrompt
    words: list[text.WordSpan]
    vocabulary: Vocabulary

    @property
    def end(self) -> int:
        """The place of the end token."""
        return self.words[-1].stop if self.words else 1


def tokens(prompt: str, *, arithmetic: Sequence[str] = (), count: int = 3, **settings: Any) -> Visualization:
    """Show how a model reads `prompt`: pieces, ids, nearest words, states, and what was cut.

    `arithmetic` are sums of words like "Paris - France + England"; `count` is how many nearest words
    are given for each piece and each sum. `settings` are `model`, `embedding`, `device` and `dtype` of
    `generate`. Raises `UsageError` for a sum that is none, or a prompt that is far too long.
    """
    own = validate(GenerateSettings, settings | {"prompt": prompt})
    if count < 1:
        raise UsageError(f"{count} nearest words cannot be shown", "1 is the least")
    model = models.load(own.model, own.device, own.dtype)
    learned = tuple(tokens_in_prompts([prompt, *arithmetic], own.embedding))
    for token in learned:
        check_compatible(token, model)
    reading = text.tokenize(model, prompt, learned)
    found = _Text(model, prompt, learned, reading, text.word_spans(model, reading, learned), Vocabulary(model))
    pieces = _pieces(found, count)
    points, shares = _map(found)
    numbers = {
        "prompt": prompt,
        "model": own.model,
        "positions": len(reading.ids),
        "used": found.end - 1,
        "padding": {"id": text.padding_id(model), "count": len(reading.ids) - found.end - 1},
        "cut": reading.truncated,
        "words": [vars(word) for word in found.words],
        "pieces": pieces,
        "typical_norm": found.vocabulary.typical_norm,
        "map": {"explained_variance": list(shares), "points": [vars(p) for p in points]},
        "arithmetic": [_sum(found, expression, max(count, 5)) for expression in arithmetic],
    }
    return Visualization(
        numbers,
        still=lambda: plots.to_image(_drawn(numbers)),
        svg=lambda: plots.to_svg(_drawn(numbers)),
        ai_generated=False,
    )


def _pieces(found: _Text, count: int) -> list[dict[str, Any]]:
    """One entry for every position up to the end: its piece, id or learned row, and nearest words."""
    reading = found.reading
    names = text.token_names(found.model, reading)
    vectors = text.input_vectors(found.model, reading, found.tokens)
    entries = []
    for place in range(found.end + 1):
        row, number = reading.vector_index[place], reading.ids[place]
        word = next((w.text for w in found.words if w.start <= place < w.stop), "")
        kind = "learned" if row >= 0 else "word" if word else "end" if place else "begin"
        vector = vectors[place]
        entry = {
            "place": place,
            "kind": kind,
            "word": word,
            "piece": word if row >= 0 else names[place],
            "id": None if row >= 0 else number,
            "row": row if row >= 0 else None,
            "norm": float(vector.norm()),
            "nearest": [],
        }
        if word:
            (near,) = found.vocabulary.nearest(vector[None], count + 1)
            own = entry["piece"].removesuffix("</w>") if row < 0 else None
            entry["nearest"] = [pair for pair in near if pair[0] != own][:count]
        entries.append(entry)
    return entries


def _sum(found: _Text, expression: str, count: int) -> dict[str, Any]:
    vector = combine(found.vocabulary, expression, found.tokens)
    (near,) = found.vocabulary.nearest(vector[None], count, exclude=expression.split())
    return {"expression": expression, "norm": float(vector.norm()), "nearest": near}


# --- the states as a map ---------------------------------------------------------------------


def _map(found: _Text) -> tuple[list[MapPoint], tuple[float, float]]:
    """The states at the words' own positions and at the end, and those of related words, in two dimensions.

    The begin token is left out: nothing stands before it, so its state is the same for every prompt and
    far from all others.
    """
    related = _related(found) if len(found.words) <= _FEW else []
    prompts = [found.prompt, *(prompt for prompt, _, _ in related)]
    states = text.encode(found.model, prompts, found.tokens).states.float().cpu()
    rows = [states[0, place] for place in range(1, found.end + 1)]
    names = [w.text for w in found.words for _ in range(w.start, w.stop)] + ["end"]
    rows += [states[i, word.start] for i, (_, word, _) in enumerate(related, 1)]
    seen, shares = plots.project_to_plane(torch.stack(rows))
    instead = [""] * len(names) + [word.text for _, word, _ in related]
    names += [other for _, _, other in related]
    return [
        MapPoint(name, float(x), float(y), before) for name, before, (x, y) in zip(names, instead, seen, strict=True)
    ], shares


def _related(found: _Text) -> list[tuple[str, text.WordSpan, str]]:
    """The prompt with one word changed for one that is like it: (prompt, the word it had, the new one).

    Only words that are one piece and stand once in the prompt, and only those that stay in their place.
    """
    single = {
        word.text.lower(): word
        for word in found.words
        if word.stop - word.start == 1
        and found.reading.vector_index[word.start] < 0
        and word.text.isalpha()
        and len(_places(word.text, found.prompt)) == 1
    }
    several = []
    for name, others in _alike(found, list(single)).items():
        for other in others:
            ((start, stop),) = _places(name, found.prompt)
            changed = found.prompt[:start] + other + found.prompt[stop:]
            again = text.tokenize(found.model, changed, found.tokens)
            kept = text.word_spans(found.model, again, found.tokens)
            if [(w.start, w.stop) for w in kept] == [(w.start, w.stop) for w in found.words]:
                several.append((changed, single[name], other))
    return several


def _places(word: str, prompt: str) -> list[tuple[int, int]]:
    """Where a whole word stands in a prompt, in capitals or not."""
    pattern = rf"(?<!\w){re.escape(word)}(?!\w)"
    return [match.span() for match in re.finditer(pattern, prompt, re.IGNORECASE)]


def _alike(found: _Text, names: list[str]) -> dict[str, list[str]]:
    """For each word at most two others that are like it.

    A small vocabulary is wholly put through the text encoder, whose states know best; in a large one
    the rows of the token table are compared.
    """
    known = [w for w in found.vocabulary.words if w.isalpha() and len(w) > 2]
    names = [name for name in names if name in known]
    if not names:
        return {}
    if len(known) > _SMALL:
        vectors = torch.cat([found.vocabulary.vectors(name) for name in names])
        near = found.vocabulary.nearest(vectors, 12)
    else:
        unit = _directions(found.model, tuple(known))
        best = (unit[[known.index(name) for name in names]] @ unit.T).topk(min(6, len(known)))
        near = [
            [(known[i], value) for i, value in zip(*pair, strict=True)]
            for pair in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
    return {
        name: [w for w, c in pairs if w != name and c > _ALIKE and w in known][:_LIKE]
        for name, pairs in zip(names, near, strict=True)
    }


@lru_cache(maxsize=1)
def _directions(model: models.Model, words: tuple[str, ...]) -> torch.Tensor:
    """What the text encoder makes of each word alone, (N, D), less their mean, of length one."""
    states = text.encode(model, words).states[:, 1].float().cpu()
    return torch.nn.functional.normalize(states - states.mean(dim=0), dim=1)


# --- drawing ---------------------------------------------------------------------------------


def _drawn(numbers: dict[str, Any]) -> Any:
    shown = [p for p in numbers["pieces"] if p["kind"] in ("word", "learned")]
    columns = 2 if len(shown) > 26 else 1
    lines = max(-(-len(shown) // columns), 10) + 2 * len(numbers["arithmetic"])
    figure = plots.new_figure(15, 3.2 + 0.27 * lines)
    strip, below = figure.subfigures(2, 1, height_ratios=[1.5, 1.7 + 0.27 * lines])
    for part in (strip, below):
        part.set_facecolor(plots.PAPER)
    _draw_strip(strip.subplots(), numbers)
    left, right = below.subplots(1, 2, width_ratios=[1.05, 1])
    _draw_table(left, shown, numbers["arithmetic"], columns)
    _draw_map(right, numbers["map"])
    return figure


def _draw_strip(axes: Any, numbers: dict[str, Any]) -> None:
    """A box for each of the encoder's positions, colored by what it holds."""
    count, pieces = numbers["positions"], numbers["pieces"]
    plots.blank_axes(axes, f"“{_cropped(numbers['prompt'], 100)}” fills {numbers['used']} of {count - 2} places")
    kinds = [p["kind"] for p in pieces] + ["padding"] * numbers["padding"]["count"]
    for place, kind in enumerate(kinds):
        axes.barh(0.75, 0.9 / count, left=place / count, height=0.4, align="center", color=KINDS[kind])
    for number, (kind, color) in enumerate(KINDS.items()):
        axes.barh(0.35, 0.012, left=number * 0.09, height=0.16, color=color)
        axes.text(
            number * 0.09 + 0.017, 0.35, f"{kind} {kinds.count(kind)}", fontsize=plots.TEXT, color=INK, va="center"
        )
    cut = numbers["cut"]
    says = f"cut, never seen: {_cropped(cut, 150)}" if cut else "nothing was cut"
    axes.text(0, 0.08, says, fontsize=plots.TEXT, color=INK, va="center", parse_math=False)


def _draw_table(axes: Any, shown: Sequence[dict[str, Any]], sums: Sequence[dict[str, Any]], columns: int) -> None:
    """Pieces, ids and nearest words, then the sums of words."""
    plots.blank_axes(axes, "Its pieces, their ids, and the words nearest to them")
    lines = max(-(-len(shown) // columns), 10) + 2 * len(sums)
    rows = -(-len(shown) // columns) or 1
    for i, piece in enumerate(shown):
        left, y = (i // rows) / columns, 1 - (i % rows + 0.5) / lines
        number = f"row {piece['row']}" if piece["id"] is None else str(piece["id"])
        near = ", ".join(f"{w} {c:.2f}" for w, c in piece["nearest"][: 3 if columns == 1 else 1])
        color = KINDS[piece["kind"]]
        axes.barh(y, 0.012, left=left, height=0.7 / lines, color=color)
        ends = (0.02, 0.2, 0.28) if columns == 1 else (0.02, 0.17, 0.24)
        for at, words, ink in zip(ends, (_shown(piece), number, near), (INK, SOFT, SOFT), strict=True):
            axes.text(
                left + at,
                y,
                _cropped(words, 60 if columns == 1 else 18),
                fontsize=plots.SMALL,
                color=ink,
                va="center",
                parse_math=False,
            )
    for i, found in enumerate(sums):
        y = 1 - (lines - 2 * (len(sums) - i) + 0.7) / lines
        near = ", ".join(f"{w} {c:.2f}" for w, c in found["nearest"])
        axes.text(
            0,
            y,
            f"{_cropped(found['expression'], 60)}  ≈  {_cropped(near, 80)}",
            fontsize=plots.TEXT,
            color=INK,
            va="center",
            parse_math=False,
        )


def _shown(piece: dict[str, Any]) -> str:
    """A piece without CLIP's mark of a word's end; with an ellipsis where the word goes on."""
    raw = piece["piece"]
    goes_on = piece["kind"] == "word" and not raw.endswith("</w>")
    return f"{raw}…" if goes_on else raw.removesuffix("</w>")


def _draw_map(axes: Any, told: dict[str, Any]) -> None:
    """States as points: the prompt's own, and related words pale beside them; each word is named once."""
    shares = [f"{100 * share:.0f} % of the variance" for share in told["explained_variance"]]
    plots.style_axes(
        axes,
        "What the text encoder makes of them, in two dimensions",
        f"1st direction, {shares[0]}",
        f"2nd direction, {shares[1]}",
    )
    own = [p for p in told["points"] if not p["instead_of"]]
    others = [p for p in told["points"] if p["instead_of"]]
    homes = {p["text"].lower(): p for p in own}
    for p in others:
        home = homes[p["instead_of"].lower()]
        axes.plot([home["x"], p["x"]], [home["y"], p["y"]], ":", color=SOFT, lw=1)
    axes.plot([p["x"] for p in others], [p["y"] for p in others], "o", ms=5, color="#9aa2aa")
    axes.plot([p["x"] for p in own], [p["y"] for p in own], "o", ms=8, color=plots.COLORS[0])
    for p in {p["text"]: p for p in reversed(told["points"])}.values():
        faint = bool(p["instead_of"])
        axes.annotate(
            _cropped(p["text"], 24),
            (p["x"], p["y"]),
            (6, 5),
            textcoords="offset points",
            fontsize=plots.SMALL if faint else plots.TEXT,
            color=SOFT if faint else INK,
            parse_math=False,
        )
    axes.margins(0.12)


def _cropped(words: str, most: int) -> str:
    """One line, what cannot be printed replaced; cut to `most` characters with an ellipsis."""
    return printable(words.replace("\n", " "), limit=most)
