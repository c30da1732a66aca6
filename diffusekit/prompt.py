"""Prompt syntax: weights, sections, schedules and compositions, as A1111 writes them. Imports no torch.

| written | meaning |
|---|---|
| `(word)`, `(word:1.3)`, `[word]` | weight times 1.1, times 1.3, divided by 1.1 |
| `\\(`, `\\)`, `\\[`, `\\]`, `\\\\` | the character itself |
| `BREAK` | the rest goes into another window of 75 tokens |
| `[from:to:when]`, `[to:when]`, `[from::when]` | another text after `when`: a step, or a share like 0.5 |
| `[a|b]` | one text after the other, step by step |
| `a AND b :1.2` | both prompts at once, each with its own guidance |
| `<lora:name:0.8>` | nothing to the text; the LoRA changes the model while this prompt is drawn |

Every function is linear in the length of a prompt: brackets count to a depth of `MAX_DEPTH`.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .display import quote
from .errors import UsageError
from .lora_request import LoraRequest, find_tags, parse_request

MAX_DEPTH = 32
MAX_WEIGHT = 1000.0
_FACTORS = {"(": 1.1, "[": 1 / 1.1}
_OPENERS = {")": "(", "]": "["}

_NUMBER = r"[+-]?(?:\d++(?:\.\d*+)?|\.\d++)"
_WEIGHT_TOKEN = re.compile(rf"\\[\\()\[\]]|\\|\(|\[|:\s*+({_NUMBER})\s*+\)|\)|\]|[^\\()\[\]:]++|:")
_MALFORMED = re.compile(r":\s*+([+-]?\d*+\.\d*+\.[\d.]*+)\s*+\)")
_SCHEDULE_TOKEN = re.compile(r"\\.|[\[\]():|]|[^\\\[\]():|]++|\\", re.DOTALL)
_BREAK = re.compile(r"\bBREAK\b")
_AND = re.compile(r"\bAND\b")
_HYPERNETWORK = re.compile(r"<hypernet:([^<>:]++)[^<>]*+>")


@dataclass(frozen=True)
class Span:
    """A stretch of text and the weight of its tokens."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class PromptVariant:
    """What a prompt is up to and including step `until` (from 1): its sections, which `BREAK` separates."""

    until: int
    sections: tuple[tuple[Span, ...], ...]

    @property
    def plain_text(self) -> str | None:
        """The text, if it has one section and no weights."""
        if len(self.sections) == 1 and len(self.sections[0]) == 1 and self.sections[0][0].weight == 1:
            return self.sections[0][0].text
        return None


@dataclass(frozen=True)
class PromptPart:
    """One of the prompts that `AND` composes, with its weight. The variants are in the order of their steps."""

    variants: tuple[PromptVariant, ...]
    weight: float = 1.0


@dataclass(frozen=True)
class ParsedPrompt:
    """A prompt of at least one part.

    `notes` are sentences about what was not understood. A literal prompt has no syntax, and is cut where the model's
    context ends. `loras` are what its tags ask for.
    """

    parts: tuple[PromptPart, ...]
    notes: tuple[str, ...] = ()
    is_literal: bool = False
    loras: tuple[LoraRequest, ...] = ()


def parse(prompt: str, steps: int, *, syntax: str = "a1111", is_negative: bool = False) -> ParsedPrompt:
    """Parse a prompt for a run of `steps` steps; the `syntax` is "plain", which is taken literally, or "a1111".

    In a negative prompt `AND` is a word, and LoRA tags have no effect. Raises `UsageError` for a LoRA tag that cannot
    be read.
    """
    if syntax == "plain":
        return ParsedPrompt((PromptPart((PromptVariant(steps, ((Span(prompt),),)),)),), is_literal=True)
    notes: dict[str, None] = {}  # in order, and each only once
    prompt, loras = _take_loras(prompt)
    if loras and is_negative:
        notes[f"{loras[0].tag} has no effect in a negative prompt; write it in the prompt"] = None
        loras = ()
    if names := _HYPERNETWORK.findall(prompt):
        notes[f"<hypernet:{names[0]}> is not applied: hypernetworks cannot be used"] = None
        prompt = _HYPERNETWORK.sub("", prompt)
    parts = []
    for text, weight in [(prompt, 1.0)] if is_negative else split_parts(prompt):
        variants = [
            PromptVariant(until, tuple(tuple(section) for section in parse_weights(each, notes)))
            for until, each in parse_schedule(text, steps, notes)
        ]
        parts.append(PromptPart(tuple(variants), weight))
    return ParsedPrompt(tuple(parts), tuple(notes), loras=loras)


def _take_loras(prompt: str) -> tuple[str, tuple[LoraRequest, ...]]:
    """Return a prompt without its LoRA tags, and what they ask for."""
    loras, rest, position = [], [], 0
    for start, end, text in find_tags(prompt):
        try:
            loras.append(parse_request(text))
        except ValueError as error:
            tag = quote(prompt[start:end], 100)
            raise UsageError(f"{tag} in the prompt {error}", "write <lora:name:0.8>") from None
        rest.append(prompt[position:start])
        position = end
    return "".join([*rest, prompt[position:]]), tuple(loras)


def split_parts(prompt: str) -> list[tuple[str, float]]:
    """Split a prompt at `AND` into (text, weight). A part ends with its weight: `a cat :1.2 AND a dog`."""
    texts = _AND.split(prompt)
    return [_split_weight(text) for text in texts] if len(texts) > 1 else [(prompt, 1.0)]


def _split_weight(text: str) -> tuple[str, float]:
    before, colon, after = text.rpartition(":")
    if colon and re.fullmatch(_NUMBER, after.strip()):
        return before.strip(), _limit(float(after))
    return text.strip(), 1.0


# --- weights ---------------------------------------------------------------------------------


def parse_weights(text: str, notes: dict[str, None] | None = None) -> list[list[Span]]:
    """Parse weights into sections of spans: `"a (red:1.2) cat"` gives `[[a, 1.0], [red, 1.2], [cat, 1.0]]`.

    An open bracket without its other half counts to the end of the text.
    """
    notes, weights = {} if notes is None else notes, _Weights()
    for match in _WEIGHT_TOKEN.finditer(text):
        token, number = match[0], match[1]
        if token in _FACTORS:
            weights.open(token)
        elif token in _OPENERS:
            weights.close(token, _OPENERS[token], _FACTORS[_OPENERS[token]])
        elif number is not None:
            weights.close(token, "(", float(number))
        else:
            words = token[1:] if len(token) == 2 and token[0] == "\\" else token
            for i, piece in enumerate(_BREAK.split(words)):
                if i:
                    weights.spans.append(None)
                weights.append(piece)
    notes |= dict.fromkeys(weights.finish())
    if malformed := _MALFORMED.search(text):
        notes[f"the weight {malformed[1][:20]!r} is not a number and is read as text"] = None
    return _merge(weights.spans)


class _Weights:
    """Spans so far, None for BREAK, and where the open brackets of each kind began."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, float] | None] = []
        self._starts: dict[str, list[int]] = {opener: [] for opener in _FACTORS}
        self._excess = dict.fromkeys(_FACTORS, 0)  # open brackets beyond the limit
        self._too_deep = False

    def append(self, text: str) -> None:
        """Append text of weight 1, to the last span if no bracket has begun or ended since."""
        begin = max((starts[-1] for starts in self._starts.values() if starts), default=0)
        if len(self.spans) > begin and (last := self.spans[-1]) is not None and last[1] == 1:
            self.spans[-1] = (last[0] + text, 1.0)
        elif text:
            self.spans.append((text, 1.0))

    def open(self, opener: str) -> None:
        if len(self._starts[opener]) < MAX_DEPTH:
            self._starts[opener].append(len(self.spans))
        else:
            self._excess[opener] += 1
            self._too_deep = True
            self.append(opener)

    def close(self, token: str, opener: str, factor: float) -> None:
        if self._excess[opener] or not self._starts[opener]:
            self._excess[opener] = max(self._excess[opener] - 1, 0)
            self.append(token)
        else:
            self._multiply(self._starts[opener].pop(), factor)

    def finish(self) -> list[str]:
        """Let the open brackets count to the end, and return what was not understood."""
        notes = [f"brackets deeper than {MAX_DEPTH} are read as text"] * self._too_deep
        for opener, starts in self._starts.items():
            notes += [f"a {opener!r} is not closed and counts to the end of the prompt"] * bool(starts)
            for start in starts:
                self._multiply(start, _FACTORS[opener])
        return notes

    def _multiply(self, start: int, factor: float) -> None:
        for i in range(start, len(self.spans)):
            if (span := self.spans[i]) is not None:
                self.spans[i] = span[0], _limit(span[1] * factor)


def _limit(weight: float) -> float:
    return max(min(weight, MAX_WEIGHT), -MAX_WEIGHT) if math.isfinite(weight) else MAX_WEIGHT


def _merge(spans: Sequence[tuple[str, float] | None]) -> list[list[Span]]:
    """Join neighbors of one weight, and begin a section at each BREAK."""
    sections: list[list[tuple[list[str], float]]] = [[]]
    for span in spans:
        if span is None:
            sections.append([])
        elif span[0] and sections[-1] and sections[-1][-1][1] == span[1]:
            sections[-1][-1][0].append(span[0])
        elif span[0]:
            sections[-1].append(([span[0]], span[1]))
    return [[Span("".join(texts), weight) for texts, weight in section] or [Span("")] for section in sections]


# --- schedules -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Switch:
    """`[before:after:when]`."""

    before: Sequence[Any]
    after: Sequence[Any]
    when: str

    def last_step(self, steps: int) -> int:
        """The last step, from 1, at which the text is `before`."""
        value = _limit_to(float(self.when) * (steps if "." in self.when else 1), steps)
        return int(value)

    def at(self, step: int, steps: int) -> Sequence[Any]:
        return self.before if step <= self.last_step(steps) else self.after


@dataclass(frozen=True)
class _Turns:
    """`[a|b|c]`."""

    options: Sequence[Sequence[Any]]

    def at(self, step: int, steps: int) -> Sequence[Any]:
        return self.options[(step - 1) % len(self.options)]


@dataclass
class _Group:
    """What stands in one pair of brackets so far: text, switches and turns, with `:` and `|` as items of their own."""

    bracket: str = ""
    items: list[Any] = field(default_factory=list)


_COLON, _BAR = (":",), ("|",)  # separators; as text they are plain strings


def parse_schedule(text: str, steps: int, notes: dict[str, None] | None = None) -> list[tuple[int, str]]:
    """Resolve `[from:to:when]` and `[a|b]`: the text of the prompt up to and including each step, from 1.

    `"a [b:3]"` in 10 steps gives `[(3, "a "), (10, "a b")]`. Weights stay as they are written.
    """
    items = _group(text, {} if notes is None else notes)
    if not any(isinstance(item, (_Switch, _Turns)) for item in items):
        return [(steps, text)]
    ends = sorted({end for end in _ends(items, steps) if 0 < end < steps} | {steps})
    variants: list[tuple[int, str]] = []
    for end in ends:
        now = "".join(_render(items, end, steps))
        if variants and variants[-1][1] == now:
            variants.pop()
        variants.append((end, now))
    return variants


def _group(text: str, notes: dict[str, None]) -> list[Any]:
    """Parse text into a list of strings, switches and turns."""
    stack, excess = [_Group()], 0
    for match in _SCHEDULE_TOKEN.finditer(text):
        token = match[0]
        if token in _FACTORS and len(stack) <= MAX_DEPTH:
            stack.append(_Group(token))
        elif token in _FACTORS:
            excess += 1
            notes[f"brackets deeper than {MAX_DEPTH} are read as text"] = None
            stack[-1].items.append(token)
        elif token in _OPENERS and excess:
            excess -= 1
            stack[-1].items.append(token)
        elif token in _OPENERS and stack[-1].bracket == _OPENERS[token]:
            group = stack.pop()
            stack[-1].items += _close(group, token)
        elif token in (":", "|") and stack[-1].bracket == "[":
            stack[-1].items.append(_COLON if token == ":" else _BAR)
        else:
            stack[-1].items.append(token)
    while len(stack) > 1:  # brackets that are not closed are text
        group = stack.pop()
        stack[-1].items += [group.bracket, *_as_text(group.items)]
    return stack[0].items


def _close(group: _Group, token: str) -> list[Any]:
    """Turn a closed bracket into a switch, into turns, or back into text."""
    items = group.items
    colons = [i for i, item in enumerate(items) if item is _COLON]
    if group.bracket == "[" and 1 <= len(colons) <= 2:
        tail = items[colons[-1] + 1 :]
        when = "".join(tail).strip() if all(isinstance(item, str) for item in tail) else ""
        if re.fullmatch(_NUMBER, when):
            before = items[: colons[0]] if len(colons) == 2 else []
            after = items[colons[0] + 1 : colons[1]] if len(colons) == 2 else items[: colons[0]]
            return [_Switch(_as_text(before), _as_text(after), when)]
    if group.bracket == "[" and _BAR in items and not colons:
        options: list[list[Any]] = [[]]
        for item in items:
            if item is _BAR:
                options.append([])
            else:
                options[-1].append(item)
        return [_Turns(options)]
    return [group.bracket, *_as_text(items), token]


def _as_text(items: Sequence[Any]) -> list[Any]:
    return [item[0] if item is _COLON or item is _BAR else item for item in items]


def _ends(items: Sequence[Any], steps: int) -> Iterator[int]:
    """Yield the steps after which the text may change."""
    for item in items:
        if isinstance(item, _Switch):
            yield item.last_step(steps)
            yield from _ends(item.before, steps)
            yield from _ends(item.after, steps)
        elif isinstance(item, _Turns):
            yield from range(1, steps)
            return


def _render(items: Sequence[Any], step: int, steps: int) -> Iterator[str]:
    for item in items:
        if isinstance(item, str):
            yield item
        else:
            yield from _render(item.at(step, steps), step, steps)


def _limit_to(value: float, steps: int) -> float:
    return min(max(value, 0.0), float(steps)) if math.isfinite(value) else float(steps)
