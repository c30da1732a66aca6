"""Parsed prompts to conditioning: weights, windows for long prompts, schedules and compositions.

As A1111 does it: each window of 75 tokens goes through the text encoder on its own, and the U-Net gets the hidden
states of all windows in a row. The states of a token are multiplied by its weight. Then the states of the window are
scaled so that their mean is what it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from . import text
from .conditioning import Conditioning, ConditioningSchedule
from .embeddings import LearnedToken
from .models import TextModel
from .prompt_parser import ParsedPrompt, Span

BACKTRACK = 20  # tokens at the end of a full window that may move to the next one, to end it at a comma

Sections = tuple[tuple[Span, ...], ...]


@dataclass
class PromptWindow:
    """Up to 75 token ids of a prompt, with their weights. `vector_index` is that of `text.TokenizedPrompt`."""

    ids: list[int] = field(default_factory=list)
    vector_index: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def append(self, token_id: int, vector: int, weight: float) -> None:
        self.ids.append(token_id)
        self.vector_index.append(vector)
        self.weights.append(weight)

    def split(self, position: int) -> PromptWindow:
        """Cut off and return what comes from `position` on."""
        rest = PromptWindow(self.ids[position:], self.vector_index[position:], self.weights[position:])
        del self.ids[position:], self.vector_index[position:], self.weights[position:]
        return rest


def windows(
    model: TextModel, sections: Sections, tokens: Sequence[LearnedToken] = (), *, encoder: int = 0
) -> list[PromptWindow]:
    """Divide a prompt into windows: a new one at each section, and where one is full, after a comma if one is near.

    The vectors of a learned token stay in one window.
    """
    tokenizer, capacity = model.tokenizers[encoder], model.context_length - 2
    comma = tokenizer.convert_tokens_to_ids(",</w>")
    found: list[PromptWindow] = []
    for section in sections:
        found.append(PromptWindow())
        for span in section:
            for piece in text.split_pieces(tokenizer, span.text, tokens):
                if not piece.divisible and len(found[-1].ids) + len(piece.ids) > capacity:
                    found.append(PromptWindow())
                for token_id, vector in zip(piece.ids, piece.vector_index, strict=True):
                    if len(found[-1].ids) == capacity:
                        found.append(_begin_next(found[-1], comma, is_comma=token_id == comma))
                    found[-1].append(token_id, vector, span.weight)
    return found


def _begin_next(full: PromptWindow, comma: int, *, is_comma: bool) -> PromptWindow:
    """Begin the window after a full one, with what stands after the last comma there if that is not far."""
    capacity = len(full.ids)
    near = [i for i in range(max(capacity - BACKTRACK, 0), capacity) if full.ids[i] == comma]
    return PromptWindow() if is_comma or not near else full.split(near[-1] + 1)


def encode(
    model: TextModel,
    prompts: Sequence[ParsedPrompt],
    negatives: Sequence[ParsedPrompt] = (),
    tokens: Sequence[LearnedToken] = (),
) -> tuple[ConditioningSchedule, ConditioningSchedule | None]:
    """Encode prompts and negative prompts to conditionings of one length; without `negatives` the second is None.

    Prompts without any syntax that fit into one window are encoded by `text.encode`, bit-identically.
    """
    plain = [_plain_text(model, parsed, tokens) for parsed in (*prompts, *negatives)]
    if all(each is not None for each in plain):
        texts = [str(each) for each in plain]
        cond = text.encode(model, texts[: len(prompts)], tokens).schedule()
        return cond, text.encode(model, texts[len(prompts) :], tokens).schedule() if negatives else None
    encoded = _encode_all(model, list(_all_sections((*prompts, *negatives))), tokens)
    return _schedule(prompts, encoded), _schedule(negatives, encoded) if negatives else None


def _plain_text(model: TextModel, parsed: ParsedPrompt, tokens: Sequence[LearnedToken]) -> str | None:
    """The text of a prompt that needs nothing of this module."""
    if len(parsed.parts) > 1 or len(parsed.parts[0].variants) > 1:
        return None
    plain = parsed.parts[0].variants[0].plain_text
    if plain is None or parsed.is_literal:
        return plain
    return None if text.tokenize(model, plain, tokens).truncated else plain


def _all_sections(prompts: Sequence[ParsedPrompt]) -> Iterator[Sections]:
    for parsed in prompts:
        for part in parsed.parts:
            for variant in part.variants:
                yield variant.sections


@torch.no_grad()
def _encode_all(
    model: TextModel, wanted: Sequence[Sections], tokens: Sequence[LearnedToken]
) -> dict[Sections, Conditioning]:
    """Encode each distinct prompt once, to one row of as many windows as the longest has."""
    empty: Sections = ((Span(""),),)
    distinct = list(dict.fromkeys([*wanted, empty]))
    per_encoder = [
        [windows(model, sections, tokens, encoder=number) for sections in distinct]
        for number in range(len(model.tokenizers))
    ]
    counts = [len(each) for each in per_encoder[0]]
    cond = _encode_windows(model, [[w for each in found for w in each] for found in per_encoder], tokens)
    rows = dict(zip(distinct, _ranges(counts), strict=True))
    padding = [rows[empty].start]
    encoded = {}
    for sections, own in rows.items():
        each = cond[[*own, *padding * (max(counts) - len(own))]]
        states = each.states.flatten(0, 1)[None]
        encoded[sections] = Conditioning(states, None if each.pooled is None else each.pooled[:1])
    return encoded


def _ranges(counts: Sequence[int]) -> list[range]:
    starts = [sum(counts[:i]) for i in range(len(counts))]
    return [range(start, start + count) for start, count in zip(starts, counts, strict=True)]


def _encode_windows(
    model: TextModel, per_encoder: Sequence[Sequence[PromptWindow]], tokens: Sequence[LearnedToken]
) -> Conditioning:
    """Run windows through the text encoders, one row each, and apply the weights."""
    device, capacity = model.placement.device, model.context_length - 2
    ids, vector_index = [], []
    for tokenizer, found in zip(model.tokenizers, per_encoder, strict=True):
        begin, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
        padding = [capacity - len(window.ids) for window in found]
        ids.append([[begin, *w.ids, end, *[pad] * n] for w, n in zip(found, padding, strict=True)])
        vector_index.append([[-1, *w.vector_index, -1, *[-1] * n] for w, n in zip(found, padding, strict=True)])
    weights = [[1.0, *w.weights, 1.0, *[1.0] * (capacity - len(w.ids))] for w in per_encoder[0]]
    learned = zip(*(token.vectors for token in tokens), strict=True)
    cond = text.encode_ids(
        model.text_encoders,
        [torch.tensor(each, device=device) for each in ids],
        [torch.tensor(each, device=device) for each in vector_index],
        [torch.cat(each).to(device) for each in learned],
    )
    return Conditioning(_apply_weights(cond.states, torch.tensor(weights, device=device)), cond.pooled)


def _apply_weights(states: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Multiply states (N, T, D) by weights (N, T), and keep the mean of each window. Weights of 1 change nothing."""
    exact = states.float()
    weighted = exact * weights[..., None]
    ratio = exact.mean((1, 2)) / weighted.mean((1, 2))
    ratio = torch.where(ratio.isfinite(), ratio, torch.ones_like(ratio))  # all weights may be 0
    is_weighted = (weights != 1).any(1)[:, None, None]
    return torch.where(is_weighted, (weighted * ratio[:, None, None]).to(states.dtype), states)


def _schedule(prompts: Sequence[ParsedPrompt], encoded: dict[Sections, Conditioning]) -> ConditioningSchedule:
    """Put the conditioning of every part of every prompt together, for each stretch of steps without a change."""
    count = max(len(parsed.parts) for parsed in prompts)
    # a prompt of fewer parts gets its first part again, with a weight of 0
    parts = [[*parsed.parts, *[parsed.parts[0]] * (count - len(parsed.parts))] for parsed in prompts]
    weights = [[part.weight for part in parsed.parts] + [0.0] * (count - len(parsed.parts)) for parsed in prompts]
    ends = sorted({variant.until for each in parts for part in each for variant in part.variants})
    stages = []
    for end in ends:
        rows = [
            encoded[next(v.sections for v in each[number].variants if end <= v.until)]
            for number in range(count)
            for each in parts
        ]
        stages.append((end / ends[-1], _stack(rows)))
    return ConditioningSchedule(tuple(stages), torch.tensor(weights).T)


def _stack(rows: Sequence[Conditioning]) -> Conditioning:
    pooled = [row.pooled for row in rows if row.pooled is not None]
    return Conditioning(torch.cat([row.states for row in rows]), torch.cat(pooled) if pooled else None)
