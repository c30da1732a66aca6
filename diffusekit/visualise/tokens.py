"""Tokens (verb `tokens`): how a model reads a text, what was cut off, and which words are close to each other.

Two spaces are shown. The token table has one row per token, whatever the context. In the text encoder's
states, a word has already absorbed the words before it.
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
MAX_WORDS_WITH_RELATED = 10  # the map of a longer prompt shows no related words
RELATED_PER_WORD, MIN_SIMILARITY = 2, 0.5
SMALL_VOCABULARY = 2000  # words; a vocabulary up to this size goes through the text encoder as a whole


@dataclass(frozen=True)
class MapPoint:
    """A state of the text encoder in the map. A related word has taken the position of `instead_of`."""

    text: str
    x: float
    y: float
    instead_of: str = ""


@dataclass(frozen=True, eq=False)
class _Reading:
    """A prompt, the model that reads it, and the result."""

    model: models.Model
    prompt: str
    tokens: tuple[LearnedToken, ...]
    tokenized: text.TokenizedPrompt
    words: list[text.WordSpan]
    vocabulary: Vocabulary

    @property
    def end(self) -> int:
        """The position of the end token."""
        return self.words[-1].stop if self.words else 1


def tokens(
    prompt: str,
    *,
    arithmetic: Sequence[str] = (),
    count: int = 3,
    model: str | models.Model = "mini",
    embedding: Sequence[str] = (),
    device: str = "auto",
    dtype: str = "auto",
) -> Visualization:
    """Show how a model reads `prompt`: tokens, ids, nearest words, states, and what was cut off.

    `arithmetic` are sums of words like "Paris - France + England". `count` is the number of nearest words of
    each token and sum. The other arguments are those of `generate`. Raises `UsageError` for an invalid sum or
    a prompt that is far too long.
    """
    numbers = analyze(
        prompt,
        arithmetic=arithmetic,
        count=count,
        model=model,
        embedding=embedding,
        device=device,
        dtype=dtype,
    )
    return render(numbers)


def analyze(
    prompt: str,
    *,
    arithmetic: Sequence[str] = (),
    count: int = 3,
    model: str | models.Model = "mini",
    embedding: Sequence[str] = (),
    device: str = "auto",
    dtype: str = "auto",
) -> dict[str, Any]:
    """Compute the numbers that `tokens` shows. Arguments and errors are those of `tokens`."""
    settings = {"prompt": prompt, "embedding": embedding, "device": device, "dtype": dtype}
    own = validate(GenerateSettings, settings)
    if count < 1:
        raise UsageError(f"cannot show {count} nearest words", "the minimum is 1")
    loaded = models.resolve(model, own.device, own.dtype)
    learned = tuple(tokens_in_prompts([prompt, *arithmetic], own.embedding))
    for token in learned:
        check_compatible(token, loaded)
    tokenized = text.tokenize(loaded, prompt, learned)
    words = text.word_spans(loaded, tokenized, learned)
    reading = _Reading(loaded, prompt, learned, tokenized, words, Vocabulary(loaded))
    points, shares = _map(reading)
    return {
        "prompt": prompt,
        "model": loaded.name,
        "positions": len(tokenized.ids),
        "used": reading.end - 1,
        "padding": {"id": text.padding_id(loaded), "count": len(tokenized.ids) - reading.end - 1},
        "cut": tokenized.truncated,
        "text_encoders": len(loaded.text_encoders),
        "words": [vars(word) for word in words],
        "pieces": _pieces(reading, count),
        "typical_norm": reading.vocabulary.typical_norm,
        "map": {"explained_variance": list(shares), "points": [vars(point) for point in points]},
        "arithmetic": [_sum(reading, expression, max(count, 5)) for expression in arithmetic],
    }


def render(numbers: dict[str, Any]) -> Visualization:
    """Draw what `analyze` computed."""
    return Visualization(
        numbers,
        still=lambda: plots.to_image(_draw(numbers)),
        svg=lambda: plots.to_svg(_draw(numbers)),
        ai_generated=False,
    )


def _pieces(reading: _Reading, count: int) -> list[dict[str, Any]]:
    """One entry for each position up to the end token: its piece, its id or learned row, and its nearest words."""
    tokenized = reading.tokenized
    names = text.token_names(reading.model, tokenized)
    vectors = text.input_vectors(reading.model, tokenized, reading.tokens)
    entries = []
    for position in range(reading.end + 1):
        row, token_id = tokenized.vector_index[position], tokenized.ids[position]
        word = next((w.text for w in reading.words if w.start <= position < w.stop), "")
        is_learned = row >= 0
        kind = "learned" if is_learned else "word" if word else "end" if position else "begin"
        piece = word if is_learned else names[position]
        nearest: list[tuple[str, float]] = []
        if word:
            (similar,) = reading.vocabulary.nearest(vectors[position][None], count + 1)
            own = None if is_learned else piece.removesuffix("</w>")
            nearest = [pair for pair in similar if pair[0] != own][:count]
        entries.append(
            {
                "place": position,
                "kind": kind,
                "word": word,
                "piece": piece,
                "id": None if is_learned else token_id,
                "row": row if is_learned else None,
                "norm": float(vectors[position].norm()),
                "nearest": nearest,
            }
        )
    return entries


def _sum(reading: _Reading, expression: str, count: int) -> dict[str, Any]:
    vector = combine(reading.vocabulary, expression, reading.tokens)
    (nearest,) = reading.vocabulary.nearest(vector[None], count, exclude=expression.split())
    return {"expression": expression, "norm": float(vector.norm()), "nearest": nearest}


# --- the map of states -----------------------------------------------------------------------


def _map(reading: _Reading) -> tuple[list[MapPoint], tuple[float, float]]:
    """The states of the words, of the end token and of related words, projected to two dimensions.

    The begin token is left out. Its state is the same for every prompt, and far from all others.
    """
    related = _related_prompts(reading) if len(reading.words) <= MAX_WORDS_WITH_RELATED else []
    prompts = [reading.prompt, *(prompt for prompt, _, _ in related)]
    states = text.encode(reading.model, prompts, reading.tokens).states.float().cpu()
    rows = [states[0, position] for position in range(1, reading.end + 1)]
    rows += [states[i, word.start] for i, (_, word, _) in enumerate(related, 1)]
    names = [word.text for word in reading.words for _ in range(word.start, word.stop)] + ["end"]
    replaced = [""] * len(names) + [word.text for _, word, _ in related]
    names += [other for _, _, other in related]
    coordinates, shares = plots.project_to_plane(torch.stack(rows))
    points = zip(names, coordinates, replaced, strict=True)
    return [MapPoint(name, float(x), float(y), before) for name, (x, y), before in points], shares


def _related_prompts(reading: _Reading) -> list[tuple[str, text.WordSpan, str]]:
    """Prompts in which one word is replaced by a similar one: (prompt, the original word, the new word).

    Only words that are a single token and occur once are replaced, and only if no other word moves.
    """
    single = {
        word.text.lower(): word
        for word in reading.words
        if word.stop - word.start == 1
        and reading.tokenized.vector_index[word.start] < 0
        and word.text.isalpha()
        and len(_occurrences(word.text, reading.prompt)) == 1
    }
    related = []
    for name, others in _similar_words(reading, list(single)).items():
        for other in others:
            ((start, stop),) = _occurrences(name, reading.prompt)
            changed = reading.prompt[:start] + other + reading.prompt[stop:]
            tokenized = text.tokenize(reading.model, changed, reading.tokens)
            words = text.word_spans(reading.model, tokenized, reading.tokens)
            if [(w.start, w.stop) for w in words] == [(w.start, w.stop) for w in reading.words]:
                related.append((changed, single[name], other))
    return related


def _occurrences(word: str, prompt: str) -> list[tuple[int, int]]:
    """Where a whole word occurs in a prompt, in any case."""
    pattern = rf"(?<!\w){re.escape(word)}(?!\w)"
    return [match.span() for match in re.finditer(pattern, prompt, re.IGNORECASE)]


def _similar_words(reading: _Reading, names: list[str]) -> dict[str, list[str]]:
    """At most two similar words for each word.

    In a small vocabulary the text encoder's states are compared, which tell more. In a large one, the rows of
    the token table.
    """
    known = [w for w in reading.vocabulary.words if w.isalpha() and len(w) > 2]
    names = [name for name in names if name in known]
    if not names:
        return {}
    if len(known) > SMALL_VOCABULARY:
        vectors = torch.cat([reading.vocabulary.vectors(name) for name in names])
        nearest = reading.vocabulary.nearest(vectors, 12)
    else:
        directions = _state_directions(reading.model, tuple(known))
        rows = directions[[known.index(name) for name in names]]
        best = (rows @ directions.T).topk(min(6, len(known)))
        nearest = [
            [(known[i], cosine) for i, cosine in zip(*pair, strict=True)]
            for pair in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
    return {
        name: [w for w, cosine in pairs if w != name and cosine > MIN_SIMILARITY and w in known][:RELATED_PER_WORD]
        for name, pairs in zip(names, nearest, strict=True)
    }


@lru_cache(maxsize=1)
def _state_directions(model: models.Model, words: tuple[str, ...]) -> torch.Tensor:
    """The text encoder's state of each word alone (N, D), centered and normalized."""
    states = text.encode(model, words).states[:, 1].float().cpu()
    return torch.nn.functional.normalize(states - states.mean(dim=0), dim=1)


# --- drawing ---------------------------------------------------------------------------------


def _draw(numbers: dict[str, Any]) -> Any:
    pieces = [piece for piece in numbers["pieces"] if piece["kind"] in ("word", "learned")]
    columns = 2 if len(pieces) > 26 else 1
    lines = max(-(-len(pieces) // columns), 10) + 2 * len(numbers["arithmetic"])
    figure = plots.new_figure(15, 3.2 + 0.27 * lines)
    strip, below = figure.subfigures(2, 1, height_ratios=[1.5, 1.7 + 0.27 * lines])
    for part in (strip, below):
        part.set_facecolor(plots.PAPER)
    _draw_strip(strip.subplots(), numbers)
    left, right = below.subplots(1, 2, width_ratios=[1.05, 1])
    is_single = numbers["text_encoders"] == 1
    table = "the token table" if is_single else "the token table of the first text encoder"
    _draw_table(left, pieces, numbers["arithmetic"], columns, f"Tokens, their ids, and the nearest words in {table}")
    states = "States of the text encoder" if is_single else "States of both text encoders, side by side"
    _draw_map(right, numbers["map"], f"{states}, projected to two dimensions")
    return figure


def _draw_strip(axes: Any, numbers: dict[str, Any]) -> None:
    """One box per position of the encoder, colored by its kind."""
    count, pieces = numbers["positions"], numbers["pieces"]
    plots.blank_axes(axes, f"“{_crop(numbers['prompt'], 100)}” uses {numbers['used']} of {count - 2} positions")
    kinds = [piece["kind"] for piece in pieces] + ["padding"] * numbers["padding"]["count"]
    for position, kind in enumerate(kinds):
        axes.barh(0.75, 0.9 / count, left=position / count, height=0.4, align="center", color=KINDS[kind])
    for number, (kind, color) in enumerate(KINDS.items()):
        axes.barh(0.35, 0.012, left=number * 0.09, height=0.16, color=color)
        _draw_text(axes, number * 0.09 + 0.017, 0.35, f"{kind} {kinds.count(kind)}", plots.TEXT)
    cut = f"cut off: {_crop(numbers['cut'], 150)}" if numbers["cut"] else "nothing was cut off"
    _draw_text(axes, 0, 0.08, cut, plots.TEXT)


def _draw_table(
    axes: Any, pieces: Sequence[dict[str, Any]], sums: Sequence[dict[str, Any]], columns: int, title: str
) -> None:
    """Tokens, ids and nearest words, then the sums of words."""
    plots.blank_axes(axes, title)
    rows = -(-len(pieces) // columns) or 1
    lines = max(-(-len(pieces) // columns), 10) + 2 * len(sums)
    offsets, width, nearest = ((0.02, 0.2, 0.28), 60, 3) if columns == 1 else ((0.02, 0.17, 0.24), 18, 1)
    for i, piece in enumerate(pieces):
        left, y = (i // rows) / columns, 1 - (i % rows + 0.5) / lines
        axes.barh(y, 0.012, left=left, height=0.7 / lines, color=KINDS[piece["kind"]])
        token_id = f"row {piece['row']}" if piece["id"] is None else str(piece["id"])
        texts = (_piece_text(piece), token_id, _nearest_text(piece["nearest"][:nearest]))
        for offset, words, color in zip(offsets, texts, (INK, SOFT, SOFT), strict=True):
            _draw_text(axes, left + offset, y, _crop(words, width), plots.SMALL, color)
    for i, one in enumerate(sums):
        y = 1 - (lines - 2 * (len(sums) - i) + 0.7) / lines
        equation = f"{_crop(one['expression'], 60)}  ≈  {_crop(_nearest_text(one['nearest']), 80)}"
        _draw_text(axes, 0, y, equation, plots.TEXT)


def _draw_text(axes: Any, x: float, y: float, words: str, size: float, color: str = INK) -> None:
    axes.text(x, y, words, fontsize=size, color=color, va="center", parse_math=False)


def _nearest_text(nearest: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{word} {cosine:.2f}" for word, cosine in nearest)


def _piece_text(piece: dict[str, Any]) -> str:
    """A piece without CLIP's end-of-word mark. An ellipsis shows that the word continues."""
    raw = piece["piece"]
    continues = piece["kind"] == "word" and not raw.endswith("</w>")
    return f"{raw}…" if continues else raw.removesuffix("</w>")


def _draw_map(axes: Any, state_map: dict[str, Any], title: str) -> None:
    """States as points. Related words are pale and linked to the word that they replace. Each word is named once."""
    shares = [f"{100 * share:.0f} % of the variance" for share in state_map["explained_variance"]]
    plots.style_axes(axes, title, f"1st direction, {shares[0]}", f"2nd direction, {shares[1]}")
    own = [point for point in state_map["points"] if not point["instead_of"]]
    related = [point for point in state_map["points"] if point["instead_of"]]
    originals = {point["text"].lower(): point for point in own}
    for point in related:
        original = originals[point["instead_of"].lower()]
        axes.plot([original["x"], point["x"]], [original["y"], point["y"]], ":", color=SOFT, lw=1)
    axes.plot([p["x"] for p in related], [p["y"] for p in related], "o", ms=5, color="#9aa2aa")
    axes.plot([p["x"] for p in own], [p["y"] for p in own], "o", ms=8, color=plots.COLORS[0])
    for point in {p["text"]: p for p in reversed(state_map["points"])}.values():
        size, color = (plots.SMALL, SOFT) if point["instead_of"] else (plots.TEXT, INK)
        offset: dict[str, Any] = {"xytext": (6, 5), "textcoords": "offset points"}
        label, position = _crop(point["text"], 24), (point["x"], point["y"])
        axes.annotate(label, position, fontsize=size, color=color, parse_math=False, **offset)
    axes.margins(0.12)


def _crop(words: str, length: int) -> str:
    """One printable line of at most `length` characters."""
    return printable(words.replace("\n", " "), limit=length)
