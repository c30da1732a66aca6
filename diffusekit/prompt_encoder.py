"""Parsed prompts to conditioning: weights, windows for long prompts, schedules and compositions.

As A1111 does it: each window of 75 tokens goes through the text encoder on its own, and the U-Net gets the hidden
states of all windows in a row. The states of a token are multiplied by its weight. Then the states of the window are
scaled so that their mean is what it was. With two encoders (SDXL) both steps are made for each of them, and the pooled
state is that of the first window, without weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from . import text
from .conditioning import Conditioning, ConditioningSchedule
from .embeddings import LearnedToken
from .errors import UsageError
from .models import TextModel
from .prompt import ParsedPrompt, PromptPart, PromptVariant, Span

BACKTRACK = 20  # tokens at the end of a full window that may move to the next one, to end it at a comma

Sections = tuple[tuple[Span, ...], ...]
_EMPTY: Sections = ((Span(""),),)


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

    def tokenized(self, tokenizer: Any, length: int) -> text.TokenizedPrompt:
        """Return the window as a text encoder of `length` positions reads it, begin, end and padding included."""
        padding = length - 2 - len(self.ids)
        ids = [tokenizer.bos_token_id, *self.ids, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * padding]
        return text.TokenizedPrompt(ids, [-1, *self.vector_index, -1, *[-1] * padding], len(self.ids) + 1, "")

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

    Prompts without any syntax that fit into one window are encoded by `text.encode`, bit-identically. An empty
    negative prompt is zeros for a model that was trained so.
    """
    cond, uncond = _encode_pair(model, prompts, negatives, tokens)
    empty = [row for row, parsed in enumerate(negatives) if _is_empty(parsed)]
    if uncond is not None and empty and model.zeroes_empty_prompt:
        stages = tuple((until, stage.with_zeros(empty)) for until, stage in uncond.stages)
        uncond = ConditioningSchedule(stages, uncond.weights)
    return cond, uncond


def _is_empty(parsed: ParsedPrompt) -> bool:
    return not any(span.text.strip() for sections in _all_sections([parsed]) for each in sections for span in each)


def _encode_pair(
    model: TextModel,
    prompts: Sequence[ParsedPrompt],
    negatives: Sequence[ParsedPrompt],
    tokens: Sequence[LearnedToken],
) -> tuple[ConditioningSchedule, ConditioningSchedule | None]:
    plain = [_plain_text(model, parsed, tokens) for parsed in (*prompts, *negatives)]
    if all(each is not None for each in plain):
        texts = [str(each) for each in plain]
        cond = text.encode(model, texts[: len(prompts)], tokens).schedule()
        return cond, text.encode(model, texts[len(prompts) :], tokens).schedule() if negatives else None
    encoded = _encode_all(model, list(_all_sections((*prompts, *negatives))), tokens)
    pairs = zip(prompts, negatives or prompts, strict=True)
    counts = [max(len(encoded[sections]) for sections in _all_sections(pair)) for pair in pairs]
    return _schedule(prompts, encoded, counts), _schedule(negatives, encoded, counts) if negatives else None


def word_spans(
    model: TextModel, parsed: ParsedPrompt, tokens: Sequence[LearnedToken] = ()
) -> tuple[list[text.WordSpan], str]:
    """List the words of a prompt at their positions in its conditioning, all windows in a row, and what was cut off.

    Raises `UsageError` for a prompt that is not the same at every step, or is composed of several.
    """
    variants = _only_variants(parsed)
    if len(variants) != 1:
        raise UsageError(
            "a prompt with AND, [from:to:when] or [a|b] has no single list of words",
            "leave these out, or set `prompt_syntax` to plain",
        )
    plain = _plain_text(model, parsed, tokens)
    if plain is not None:
        tokenized = text.tokenize(model, plain, tokens)
        return text.word_spans(model, tokenized, tokens), tokenized.truncated
    spans: list[text.WordSpan] = []
    for number, window in enumerate(windows(model, variants[0].sections, tokens)):
        first = number * model.context_length
        tokenized = window.tokenized(model.tokenizers[0], model.context_length)
        spans += [
            text.WordSpan(word.text, first + word.start, first + word.stop)
            for word in text.word_spans(model, tokenized, tokens)
        ]
    return spans, ""


def _only_variants(parsed: ParsedPrompt) -> Sequence[PromptVariant]:
    """Return the variants of a prompt of one part, and none of a composed one."""
    first, *others = parsed.parts
    return () if others else first.variants


def _plain_text(model: TextModel, parsed: ParsedPrompt, tokens: Sequence[LearnedToken]) -> str | None:
    """The text of a prompt that needs nothing of this module."""
    variants = _only_variants(parsed)
    plain = variants[0].plain_text if len(variants) == 1 else None
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
    """Encode each distinct prompt once, and the empty one, to one row for each window."""
    distinct = list(dict.fromkeys([*wanted, _EMPTY]))
    per_encoder = [
        [windows(model, sections, tokens, encoder=number) for sections in distinct]
        for number in range(len(model.tokenizers))
    ]
    counts = [max(map(len, each)) for each in zip(*per_encoder, strict=True)]
    for found in per_encoder:  # two tokenizers with different words may need different numbers of windows
        for each, count in zip(found, counts, strict=True):
            each += [PromptWindow() for _ in range(count - len(each))]
    cond = _encode_windows(model, [[w for each in found for w in each] for found in per_encoder], tokens)
    starts = [sum(counts[:i]) for i in range(len(counts))]
    rows = zip(distinct, starts, counts, strict=True)
    return {sections: cond[slice(start, start + count)] for sections, start, count in rows}


def _encode_windows(
    model: TextModel, per_encoder: Sequence[Sequence[PromptWindow]], tokens: Sequence[LearnedToken]
) -> Conditioning:
    """Run windows through the text encoders, one row each, and apply the weights."""
    device, length = model.placement.device, model.context_length
    ids, vector_index = [], []
    for tokenizer, found in zip(model.tokenizers, per_encoder, strict=True):
        tokenized = [window.tokenized(tokenizer, length) for window in found]
        ids.append([each.ids for each in tokenized])
        vector_index.append([each.vector_index for each in tokenized])
    weights = [[[1.0, *w.weights, *[1.0] * (length - 1 - len(w.weights))] for w in found] for found in per_encoder]
    learned = zip(*(token.vectors for token in tokens), strict=True)
    cond = text.encode_ids(
        model.text_encoders,
        [torch.tensor(each, device=device) for each in ids],
        [torch.tensor(each, device=device) for each in vector_index],
        [torch.cat(each).to(device) for each in learned],
    )
    parts = zip(cond.states.split(model.widths, dim=-1), weights, strict=True)
    weighted = [_apply_weights(states, torch.tensor(each, device=device)) for states, each in parts]
    return Conditioning(torch.cat(weighted, dim=-1), cond.pooled)


def _apply_weights(states: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Multiply states (N, T, D) by weights (N, T), and keep the mean of each window. Weights of 1 change nothing."""
    exact = states.float()
    weighted = exact * weights[..., None]
    ratio = exact.mean((1, 2)) / weighted.mean((1, 2))
    ratio = torch.where(ratio.isfinite(), ratio, torch.ones_like(ratio))  # all weights may be 0
    is_weighted = (weights != 1).any(1)[:, None, None]
    return torch.where(is_weighted, (weighted * ratio[:, None, None]).to(states.dtype), states)


def _schedule(
    prompts: Sequence[ParsedPrompt], encoded: dict[Sections, Conditioning], counts: Sequence[int]
) -> ConditioningSchedule:
    """Put the conditioning of every part of every prompt together, for each stretch of steps without a change.

    `counts` are the windows of each image. What one image gets does not depend on the others of its batch.
    """
    number_of_parts = max(len(parsed.parts) for parsed in prompts)
    # a prompt of fewer parts gets its first part again, with a weight of 0
    parts = [[*each.parts, *[each.parts[0]] * (number_of_parts - len(each.parts))] for each in prompts]
    weights = [[part.weight for part in each.parts] + [0.0] * (number_of_parts - len(each.parts)) for each in prompts]
    ends = sorted({variant.until for each in parts for part in each for variant in part.variants})
    stages = []
    for end in ends:
        now = [[_variant(part, end).sections for part in each] for each in parts]
        rows = [[encoded[each[number]] for each in now] for number in range(number_of_parts)]
        stages.append((end / ends[-1], _stack([row for each in rows for row in each], encoded[_EMPTY], counts)))
    return ConditioningSchedule(tuple(stages), torch.tensor(weights).T)


def _variant(part: PromptPart, step: int) -> PromptVariant:
    return next(variant for variant in part.variants if step <= variant.until)


def _stack(rows: Sequence[Conditioning], empty: Conditioning, counts: Sequence[int]) -> Conditioning:
    """Put the windows of each prompt in a row, and the prompts below each other.

    A prompt with fewer windows than its image has is filled up with the empty prompt's, as A1111 does it. What an
    image does not have is masked.
    """
    longest, length = max(counts), empty.states.shape[1]
    states, mask = [], []
    for row, count in zip(rows, [*counts] * (len(rows) // len(counts)), strict=True):
        filled = torch.cat([row.states, empty.states.expand(longest - len(row), -1, -1)])
        states.append(filled.flatten(0, 1))
        mask.append([1.0] * count * length + [0.0] * (longest - count) * length)
    pooled = [row.pooled[:1] for row in rows if row.pooled is not None]
    return Conditioning(
        torch.stack(states),
        torch.cat(pooled) if pooled else None,
        mask=torch.tensor(mask, device=empty.states.device) if min(counts) < longest else None,
    )
